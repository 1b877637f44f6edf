"""Figures for people beside the limit that they were compared with."""

MOST_DIGITS = 17
"""More digits than any float64 has."""


def beside(figure: float, limit: float, spec: str = ".3f") -> tuple[str, str]:
    """A figure and its limit in the same format, with as many digits as it takes to tell them
    apart.

    Rounding keeps the order of two numbers but may make them equal, and then a comparison that is
    shown is untrue: 0.0244 above 0.0239 is not `0.024 > 0.024`.

    Args:
        figure: what was found.
        limit: what it was compared with.
        spec: format with the least digits, such as `+.3f` or `.2%`.

    >>> beside(0.0244, 0.0239)
    ('0.0244', '0.0239')
    >>> beside(0.5, 0.02)
    ('0.500', '0.020')
    """
    sign, _, rest = spec.partition(".")
    least, kind = int(rest[:-1]), rest[-1]
    for digits in range(least, MOST_DIGITS + 1):
        shown = tuple(f"{value:{sign}.{digits}{kind}}" for value in (figure, limit))
        if figure == limit or shown[0] != shown[1]:
            return shown[0], shown[1]
    return repr(figure), repr(limit)
