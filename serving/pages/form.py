"""The form of a customer record: made from the contract, filled by a person, read by the same rules
as `/predict`.
"""

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
"""A number as people write it. Python would also take `1_000`, `nan` and digits of other
scripts.
"""

THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3}){1,100}")
"""A whole number as the page writes it. In a decimal number a comma may be meant for the point, so
it is refused there.
"""

SHOWN_LENGTH = 60
"""Characters of a wrong value that its message repeats."""

SHARED_WORDS = 2
"""Fields whose descriptions begin with so many words in common are labelled with the rest of
them.
"""

LISTED_FIELDS = 3
"""Fields that the title of a group names where they share no words."""

EXAMPLES = {"good": "Good", "borderline": "Borderline", "bad": "Bad"}


@dataclass(frozen=True)
class Control:
    """One field of the form: what it is, beyond the title of its group, what stands in it, and what
    is wrong with it.
    """

    field: Field
    label: str
    typed: str
    problem: str | None

    @property
    def name(self) -> str:
        """What the field is, by itself."""
        return _label(self.field, ())

    @property
    def hint(self) -> str:
        """The rest of the description, range and unit. The codes of a table speak for
        themselves.
        """
        added = _sentence(self.field.description.partition(" (")[2].removesuffix(")"))
        valid = (
            f"{plain(self.field.minimum)} to {plain(self.field.maximum)} {self.field.unit}".strip()
        )
        return "; ".join(
            text for text in (added, valid if self.field.codes is None else "") if text
        )

    @property
    def keyboard(self) -> str:
        """The keyboard that a telephone shows; those for numbers have no minus."""
        if self.field.minimum is None or self.field.minimum < 0:
            return "text"
        return "decimal" if self.field.decimal else "numeric"


@dataclass(frozen=True)
class Group:
    """Fields that belong together: those of one reason, or the protected ones."""

    title: str
    about: str
    controls: tuple[Control, ...]

    @property
    def hint(self) -> str:
        """The hint of several fields that have the same."""
        hints = {control.hint for control in self.controls}
        return hints.pop() if len(hints) == 1 and len(self.controls) > 1 else ""

    @property
    def has_tables(self) -> bool:
        """Whether a field of it is chosen from a table of codes."""
        return any(control.field.codes is not None for control in self.controls)


def groups(
    portfolio: Portfolio, typed: Mapping[str, str], problems: Mapping[str, str]
) -> list[Group]:
    """The form, in the order of the reasons; the protected fields come last.

    Args:
        portfolio: whose contract it is.
        typed: what stands in the fields, by name.
        problems: what is wrong, by name.
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

    explained = [
        group("", f"Behind reason {one.code}: {one.text}.", one.fields) for one in portfolio.reasons
    ]
    if not portfolio.protected:
        return explained
    about = (
        "No feature of the model uses these fields, so they change nothing here. The record has "
        "them for fairness monitoring."
    )
    return [*explained, group("Protected fields", about, portfolio.protected)]


def read(
    portfolio: Portfolio, customer: type[BaseModel], typed: Mapping[str, str]
) -> tuple[BaseModel | None, dict[str, str]]:
    """What was typed as a customer, or what is wrong with it by field.

    Args:
        portfolio: whose contract it is.
        customer: the request of `/predict`.
        typed: what stands in the fields, by name; names that are no field are passed over.
    """
    values = {
        field.name: _value(field, typed.get(field.name, "").strip()) for field in portfolio.fields
    }
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return customer.model_validate(given), {}
    except ValidationError as error:
        wrong = {str(place).lower() for one in error.errors() for place in one["loc"][:1]}
    return None, {
        field.name: _problem(field, typed) for field in portfolio.fields if field.name in wrong
    }


def values_of(portfolio: Portfolio, customer: BaseModel) -> dict[str, Any]:
    """A customer's fields by name."""
    return {name: getattr(customer, name) for name in portfolio.field_names}


def example(name: str, bundle: Bundle, rule: DecisionRule) -> dict[str, str]:
    """A customer to begin with, as it would be typed: of the bundle's golden requests the one with
    the most points (good), with the fewest (bad), or with the PD nearest to the cut-off
    (borderline).

    Raises:
        KeyError: if there is no example of this name.
    """
    order = {
        "good": lambda one: -one.score,
        "borderline": lambda one: abs(one.default_probability - rule.cut_off),
        "bad": lambda one: one.score,
    }
    chosen: GoldenRequest = min(bundle.golden, key=order[name])
    return {
        field: _typed(value)
        for field, value in record_of(chosen.raw, bundle.manifest.inputs).items()
    }


def shown(field: Field, value: Value) -> str:
    """A value for people: a code with its meaning, a number with its unit."""
    if value is None:
        return "not stated"
    if field.codes is not None:
        return f"{field.codes[value]} ({value})" if value in field.codes else str(value)
    return f"{plain(float(value))} {field.unit}".strip()


def plain(number: float | None) -> str:
    """A number with its thousands."""
    return "" if number is None else f"{number:,.10g}"


def _shared_words(fields: Sequence[Field]) -> list[str]:
    """The words that the descriptions of several fields begin with, if they are enough and none is
    all of a description.
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
    """The description without the words that its group shares, and without what it adds in
    brackets.
    """
    return _sentence(" ".join(field.description.split()[len(shared) :]).partition(" (")[0])


def _title(fields: Sequence[Field], shared: Sequence[str]) -> str:
    if shared:  # a short last word, as in "payment status in", leads to what follows
        return _sentence(" ".join(shared[:-1] if len(shared[-1]) < 4 else shared))
    names = [_label(field, ()) for field in fields]
    return "; ".join(names[:LISTED_FIELDS]) + (
        f"; {len(names) - LISTED_FIELDS} more" if len(names) > LISTED_FIELDS else ""
    )


def _value(field: Field, text: str) -> Code | float | None:
    """What a text means; one that means nothing is left for the contract to refuse."""
    if not text:
        return None
    if field.kind == "whole" and THOUSANDS.fullmatch(text):
        return int(text.replace(",", ""))
    if field.is_text or not PLAIN_NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def _problem(field: Field, typed: Mapping[str, str]) -> str:
    text = typed.get(field.name, "").strip()
    said = (
        f"“{text[:SHOWN_LENGTH]}{'…' if len(text) > SHOWN_LENGTH else ''}” is not valid"
        if text
        else "missing"
    )
    return f"{said}; valid: {field.valid}"


def _typed(value: Value) -> str:
    if value is None:
        return ""
    return np.format_float_positional(value, trim="-") if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
