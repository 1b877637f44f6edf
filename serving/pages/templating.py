"""The templates of the pages, with their filters for figures."""

import datetime
import re
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.portfolio.contract import Portfolio
from serving.pages import form

NAME = re.compile(r"\b[a-z][a-z0-9_]*\b")

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
        "p_value": _p_value,
        "labelled": label_fields,
        "moment": partial(datetime.datetime.fromtimestamp, tz=datetime.UTC),
    }
    templates.globals |= {
        "format_value": form.format_value,
        "format_with_limit": format_with_limit,
    }
    return templates


def render_problem(portfolio: Portfolio, problem: Mapping[str, Any]) -> str:
    """The page of a problem (RFC 9457)."""
    template = environment().get_template("error.html")
    return template.render(portfolio=portfolio, problem=problem)


def label_fields(text: str, labels: Mapping[str, str]) -> str:
    """A text with the labels of fields in place of their names."""
    return NAME.sub(lambda found: labels.get(found[0], found[0]), text)


def _p_value(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(share: float) -> str:
    """A share with two decimal places."""
    return (
        "below 0.01 %" if 0 < share < 5e-5 else f"{share:.2%}".replace("%", "\N{NO-BREAK SPACE}%")
    )
