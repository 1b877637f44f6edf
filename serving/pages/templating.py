"""The templates of the pages for people, and how figures are written in them."""

import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from creditrisk_assets.number_format import format_with_limit
from serving.pages import form

VERDICTS = {
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
    """Every template, with what they write figures by; a name that is missing is an error."""
    made = Environment(
        loader=PackageLoader("serving.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": _percent, "points": _points, "plain": form.plain, "moment": _moment}
    made.globals |= {"shown": form.shown, "format_with_limit": format_with_limit}
    return made


def _percent(share: float) -> str:
    """A share with two digits behind the point."""
    return (
        "below 0.01 %" if 0 < share < 5e-5 else f"{share:.2%}".replace("%", "\N{NO-BREAK SPACE}%")
    )


def _points(score: float) -> str:
    return f"{score:,.1f}"


def _moment(seconds: float) -> datetime.datetime:
    """Seconds since the epoch as a moment, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
