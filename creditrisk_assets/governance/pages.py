"""Documents as pages: templates filled with values, pictures inside, nothing fetched from anywhere."""

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: object) -> str:
    """A template of this package, filled; what it names and is not given is an error.

    Args:
        template: its name; the values in one that ends in `.html` are escaped.
        values: what it shows.
    """
    return _environment().get_template(template).render(**values)


def inline(png: bytes) -> str:
    """A PNG as an address that a page can show by itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("creditrisk_assets.governance"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = _figure
    return environment


def _figure(value: object) -> str:
    """A number with four digits behind the point, a whole number with its thousands, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
