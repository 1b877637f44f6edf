"""The templates of the pages, with their filters for figures."""

import datetime
from functools import cache, partial

from jinja2 import Environment, PackageLoader, StrictUndefined

from creditrisk_assets.number_format import format_with_limit
from serving.pages import form

VERDICT_LABELS = {
    "first": "first champion",
    "promoted": "promoted",
    "rejected": "challenger rejected",
    "unchanged": "champion unchanged",
    "rolled_back": "rolled back",
    "cut_off": "cut-off changed",
    "policy": "policy changed",
}


@cache
def environment() -> Environment:
    """The templates and their filters; a missing name is an error."""
    templates = Environment(
        loader=PackageLoader("serving.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": _percent,
        "points": "{:,.1f}".format,
        "number": form.format_number,
        "moment": partial(datetime.datetime.fromtimestamp, tz=datetime.UTC),
    }
    templates.globals |= {
        "format_value": form.format_value,
        "format_with_limit": format_with_limit,
    }
    return templates


def _percent(share: float) -> str:
    """A share with two decimal places."""
    return (
        "below 0.01 %" if 0 < share < 5e-5 else f"{share:.2%}".replace("%", "\N{NO-BREAK SPACE}%")
    )
