"""Documents as self-contained pages: templates with values and embedded pictures."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from creditrisk_assets.modelling.fairness import FOUR_FIFTHS, FieldFigures, GroupFigures, under_line
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.portfolio.contract import DecisionWords


def fairness_note(words: DecisionWords) -> str:
    """The meaning of the figures by group."""
    return (
        f"{words.below.capitalize()} is a PD below the cut-off. The adverse-impact ratio is of "
        f"each group's {words.rate} to the largest one; 0.80 is the four-fifths line, and a ratio "
        "under it is flagged. These figures are monitored; they prove no compliance with any rule."
    )


@dataclass(frozen=True)
class Table:
    """A header and rows of texts."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fairness_table(figures: Sequence[FieldFigures], words: DecisionWords) -> Table:
    """Fairness monitoring by group; a group that is too small has no figures."""
    header = (
        "field",
        "group",
        "rows",
        words.rate,
        "adverse-impact ratio (95 %)",
        "mean difference",
        f"{words.rate} among goods",
        "mean PD",
        "bad rate (95 %)",
    )
    rows = tuple(
        (
            field.field,
            f"{group.group} (reference)" if group.group == field.reference else group.group,
            *_group_cells(group),
        )
        for field in figures
        for group in field.groups
    )
    return Table(header, rows)


def _group_cells(group: GroupFigures) -> tuple[str, ...]:
    if not group.judged:
        return (f"{group.n:,}", "too few rows to judge", "", "", "", "", "")
    shown, _ = format_with_limit(group.impact_ratio, FOUR_FIFTHS)
    flag = under_line(group.impact_ratio, group.impact_ratio_high)
    return (
        f"{group.n:,}",
        f"{group.approval_rate:.3f}",
        f"{shown} ({group.impact_ratio_low:.3f} to {group.impact_ratio_high:.3f})"
        + (f": {flag}" if flag else ""),
        f"{group.mean_difference:+.3f}",
        "" if group.equal_opportunity is None else f"{group.equal_opportunity:.3f}",
        f"{group.mean_pd:.4f}",
        f"{group.bad_rate:.4f} ({group.bad_rate_low:.4f} to {group.bad_rate_high:.4f})",
    )


def render(template: str, home: str = "", **values: object) -> str:
    """Render a template of this package; a missing value is an error. A page holds the style sheet
    of the API's pages.

    Args:
        template: its name; values are escaped in `.html`.
        home: address of the API, whose pages a page links to.
        values: of the template.
    """
    style = Markup(_style())  # noqa: S704  # a file of this package
    return _environment().get_template(template).render(home=home, style=style, **values)


@cache
def _style() -> str:
    return (resources.files("creditrisk_assets") / "static" / "page.css").read_text()


def inline(png: bytes) -> str:
    """A PNG as a data URL."""
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
    environment.filters["figure"] = figure
    return environment


def figure(value: object) -> str:
    """A number for people: four decimals, or thousands separators for a whole number; empty for
    None.
    """
    if value is None:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
