"""The form of a customer record: made from the contract, and read by the rules of `/predict`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from creditrisk_assets.portfolio.contract import Code, Field, Portfolio
from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, GoldenRequest
from serving.pages.what_if import Value

PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{1,400})?")
"""A number in usual notation. Python would also accept `1_000`, `nan` and digits of other
scripts.
"""

THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3}){1,100}")
"""A whole number with commas, as on the page. A comma in a decimal number is refused: it may stand
for the point.
"""

SHOWN_LENGTH = 60
"""Characters of an invalid value in its message."""

SHARED_WORDS = 2
"""If the descriptions of several fields share at least this many first words, their labels omit
them.
"""

LISTED_FIELDS = 3
"""Fields in the title of a group without shared words."""

EXAMPLES = {"good": "Good", "borderline": "Borderline", "bad": "Bad"}


@dataclass(frozen=True)
class Control:
    """A field of the form: its label, the typed text, and the problem or None."""

    field: Field
    label: str
    typed: str
    problem: str | None

    @property
    def name(self) -> str:
        """The label without the group's title."""
        return _label(self.field, ())

    @property
    def hint(self) -> str:
        """The rest of the description, range and unit; a table of codes needs none."""
        detail = _capitalised(self.field.description.partition(" (")[2].removesuffix(")"))
        valid = (
            f"{format_number(self.field.minimum)} to {format_number(self.field.maximum)} "
            f"{self.field.unit}"
        ).strip()
        return "; ".join(
            text for text in (detail, valid if self.field.codes is None else "") if text
        )

    @property
    def keyboard(self) -> str:
        """The `inputmode` for a telephone's keyboard; those for numbers have no minus."""
        if self.field.minimum is None or self.field.minimum < 0:
            return "text"
        return "decimal" if self.field.decimal else "numeric"


@dataclass(frozen=True)
class Group:
    """The fields of one reason, or the protected fields."""

    title: str
    about: str
    controls: tuple[Control, ...]

    @property
    def hint(self) -> str:
        """The common hint of several fields, or an empty text."""
        hints = {control.hint for control in self.controls}
        return hints.pop() if len(hints) == 1 and len(self.controls) > 1 else ""

    @property
    def has_tables(self) -> bool:
        """True if a field of the group has a table of codes."""
        return any(control.field.codes is not None for control in self.controls)


def groups(
    portfolio: Portfolio, typed: Mapping[str, str], problems: Mapping[str, str]
) -> list[Group]:
    """The form, in the order of the reasons; the protected fields come last.

    Args:
        portfolio: gives the contract.
        typed: texts by field.
        problems: by field.
    """

    def group(title: str, about: str, names: Sequence[str]) -> Group:
        fields = [field for field in portfolio.fields if field.name in names]
        shared = _shared_words(fields)
        return Group(
            title=title or _title(fields, shared),
            about=about,
            controls=tuple(
                Control(
                    field,
                    _label(field, shared),
                    typed.get(field.name, ""),
                    problems.get(field.name),
                )
                for field in fields
            ),
        )

    by_reason = [
        group("", f"Behind reason {reason.code}: {reason.text}.", reason.fields)
        for reason in portfolio.reasons
    ]
    if not portfolio.protected:
        return by_reason
    about = (
        "No feature of the model uses these fields, so they change nothing here. The record has "
        "them for fairness monitoring."
    )
    return [*by_reason, group("Protected fields", about, portfolio.protected)]


def read(
    portfolio: Portfolio, customer: type[BaseModel], typed: Mapping[str, str]
) -> tuple[BaseModel | None, dict[str, str]]:
    """Read the form: a customer, or None with the problems by field.

    Args:
        portfolio: gives the contract.
        customer: the request model of `/predict`.
        typed: texts by field; names of no field are ignored.
    """
    values = {
        field.name: _value(field, typed.get(field.name, "").strip()) for field in portfolio.fields
    }
    filled_in = {name: value for name, value in values.items() if value is not None}
    try:
        return customer.model_validate(filled_in), {}
    except ValidationError as error:
        invalid = {str(place).lower() for fault in error.errors() for place in fault["loc"][:1]}
    return None, {
        field.name: _problem(field, typed) for field in portfolio.fields if field.name in invalid
    }


def values_of(portfolio: Portfolio, customer: BaseModel) -> dict[str, Any]:
    """A customer's fields by name."""
    return {name: getattr(customer, name) for name in portfolio.field_names}


def example(name: str, bundle: Bundle, rule: DecisionRule) -> dict[str, str]:
    """An example customer as texts by field: the golden request of the bundle with the most points
    (good), the fewest (bad), or the PD nearest to the cut-off (borderline).

    Raises:
        KeyError: if there is no example of this name.
    """
    order = {
        "good": lambda request: -request.score,
        "borderline": lambda request: abs(request.default_probability - rule.cut_off),
        "bad": lambda request: request.score,
    }
    chosen: GoldenRequest = min(bundle.golden, key=order[name])
    return {
        field: _text(value)
        for field, value in record_of(chosen.raw, bundle.manifest.inputs).items()
    }


def format_value(field: Field, value: Value) -> str:
    """A value for people: a code with its meaning, a number with its unit."""
    if value is None:
        return "not stated"
    if field.codes is not None:
        return f"{field.codes[value]} ({value})" if value in field.codes else str(value)
    return f"{format_number(float(value))} {field.unit}".strip()


def format_number(number: float | None) -> str:
    """A number with separated thousands; empty for None."""
    return "" if number is None else f"{number:,.10g}"


def _shared_words(fields: Sequence[Field]) -> list[str]:
    """The common first words of several descriptions, if there are enough of them and each
    description has more.
    """
    described = [field.description.split() for field in fields]
    shared = [
        words[0]
        for words in takewhile(lambda words: len(set(words)) == 1, zip(*described, strict=False))
    ]
    enough = (
        len(fields) > 1 and len(shared) >= SHARED_WORDS and len(shared) < min(map(len, described))
    )
    return shared if enough else []


def _label(field: Field, shared: Sequence[str]) -> str:
    """The description without the shared words of its group, and without brackets."""
    return _capitalised(" ".join(field.description.split()[len(shared) :]).partition(" (")[0])


def _title(fields: Sequence[Field], shared: Sequence[str]) -> str:
    if shared:  # a short last word, as in "payment status in", belongs to the labels
        return _capitalised(" ".join(shared[:-1] if len(shared[-1]) < 4 else shared))
    names = [_label(field, ()) for field in fields]
    return "; ".join(names[:LISTED_FIELDS]) + (
        f"; {len(names) - LISTED_FIELDS} more" if len(names) > LISTED_FIELDS else ""
    )


def _value(field: Field, text: str) -> Code | float | None:
    """The value of a text; an invalid text is returned, for the contract to refuse."""
    if not text:
        return None
    if field.kind == "whole" and THOUSANDS.fullmatch(text):
        return int(text.replace(",", ""))
    if field.is_text or not PLAIN_NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _problem(field: Field, typed: Mapping[str, str]) -> str:
    text = typed.get(field.name, "").strip()
    fault = (
        f"“{text[:SHOWN_LENGTH]}{'…' if len(text) > SHOWN_LENGTH else ''}” is not valid"
        if text
        else "missing"
    )
    return f"{fault}; valid: {field.valid}"


def _text(value: Value) -> str:
    if value is None:
        return ""
    return np.format_float_positional(value, trim="-") if isinstance(value, float) else str(value)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
