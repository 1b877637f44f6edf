"""Formats a figure and the limit that it is compared with."""

MOST_DIGITS = 17
"""More digits than any float64 has."""


def format_with_limit(figure: float, limit: float, spec: str = ".3f") -> tuple[str, str]:
    """A figure and its limit in the same format, with enough digits to tell them apart.

    Rounding may make two different numbers equal, and then the comparison on the page is untrue:
    0.0244 above 0.0239 is not `0.024 > 0.024`.

    Args:
        figure: the observed value.
        limit: the limit of the comparison.
        spec: format with the least digits, such as `+.3f` or `.2%`.

    >>> format_with_limit(0.0244, 0.0239)
    ('0.0244', '0.0239')
    >>> format_with_limit(0.5, 0.02)
    ('0.500', '0.020')
    """
    sign, _, rest = spec.partition(".")
    least, kind = int(rest[:-1]), rest[-1]
    for digits in range(least, MOST_DIGITS + 1):
        shown = tuple(f"{value:{sign}z.{digits}{kind}}" for value in (figure, limit))
        if figure == limit or shown[0] != shown[1]:
            return shown[0], shown[1]
    return repr(figure), repr(limit)
