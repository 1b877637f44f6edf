"""Contract of a book of customers: fields, types, units, ranges and codes, features, reasons.

This module holds only plain values, so the API process can import it without pandas. Checking rows
against the contract belongs in `validation`; the portfolio of this package is in `uci_card`.
"""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from creditrisk_assets.portfolio.segmentation import SEGMENTS_LIMIT, Segmentation

FLOAT32_EXACT_INTEGER = 2**24
"""Largest magnitude up to which float32, the decision graph's input type, holds every whole number
exactly.
"""

FLOAT32_LARGEST = 3.4028234663852886e38

REASON_GROUPS_LIMIT = 6
"""Most reasons of a portfolio: their contributions are exact, at a cost of 2^6 rows of the model
for each decision.
"""

NEAR_NAME = 0.75
"""Similarity (`difflib`) from which a column's name is suggested: `due_1` and `due_0` have 0.8."""

NAMES_COMPARED = 200
"""A comparison takes some ten microseconds, and a request may name thousands of columns."""

NAMES_SHOWN = 30
NAME_SHOWN = 60
"""Characters."""

RESERVED_NAMES = frozenset(
    {
        "file",
        "line",
        "default_probability",
        "score",
        "prediction",
        "model_version",
        "bundle_sha256",
        "cut_off",
        "decision_id",
        "reasons",
        "reason_1",
        "reason_2",
        "reason_3",
        "reason_4",
        "error",
        "version",
        "held_out",
    }
)
"""Names of the columns that the system adds to a customer's record."""

Code = int | str
Kind = Literal["whole", "decimal", "code"]
Helps = Literal["more", "less"]


@dataclass(frozen=True)
class Field:
    """Field of a customer record.

    A field is a whole number, a decimal number (`decimal=True`) between `minimum` and `maximum`, or
    one of `codes`, which maps each allowed code, a whole number or a text, to its meaning. The
    decision graph gets whole numbers and numeric codes unchanged, decimals rounded to float32, and
    a text code as its position in `codes`. Where `required` is False a record may lack the field;
    the graph then gets NaN, which the feature function interprets. `bands` are the ascending lower
    edges by which fairness monitoring groups a protected number. `words` are texts for numeric
    codes in files, in upper or lower case. `helps` is the direction in which a customer may aim to
    change the value, such as more of a payment; what-if proposes no change the other way.

    Raises:
        ValueError: if the description contradicts itself, or allows values beyond float32.
    """

    name: str
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    codes: Mapping[Any, str] | None = None
    decimal: bool = False
    required: bool = True
    bands: tuple[float, ...] = ()
    words: Mapping[str, int] = field(default_factory=dict)
    helps: Helps | None = None

    def __post_init__(self) -> None:
        canonical = canonical_name(self.name)
        _require(
            self.name == canonical and self.name,
            f"field {self.name!r}: not a canonical name; valid: {canonical!r}",
        )
        _require(
            self.name not in RESERVED_NAMES,
            f"field {self.name!r}: the system uses this name itself; valid: none of "
            f"{sorted(RESERVED_NAMES)}",
        )
        if self.codes is not None:
            self._check_codes(self.codes)
        else:
            self._check_range()
        self._require(
            self.helps is None or not self.is_text,
            f"helps {self.helps!r} of text codes, which have no order; valid: None",
        )
        ascending = list(self.bands) == sorted(set(self.bands))
        self._require(
            not self.bands or (self.codes is None and ascending),
            f"bands {self.bands}; valid: ascending edges, of a field without codes",
        )
        self._check_words()

    def _require(self, valid: object, message: str) -> None:
        _require(valid, f"field {self.name}: {message}")

    def _check_codes(self, codes: Mapping[Any, str]) -> None:
        self._require(
            codes and not self.decimal,
            f"codes {dict(codes)!r} of a decimal field, or none at all; valid: at least one code",
        )
        self._require(
            self.minimum is None and self.maximum is None,
            "both codes and a range; valid: one of them",
        )
        self._require(
            len({isinstance(code, str) for code in codes}) == 1,
            f"codes {list(codes)!r}; valid: all whole numbers, or all texts",
        )
        for code in codes:
            if isinstance(code, str):
                valid, what = code and code == code.strip(), "a text without spaces around it"
            else:
                whole = isinstance(code, int) and not isinstance(code, bool)
                valid = whole and abs(code) <= FLOAT32_EXACT_INTEGER
                what = f"a whole number up to {FLOAT32_EXACT_INTEGER}"
            self._require(valid, f"code {code!r}; valid: {what}")

    def _check_words(self) -> None:
        codes = {} if self.codes is None or self.is_text else self.codes
        known = " or ".join(map(str, codes)) or "none: the field has no numeric codes"
        for word, code in self.words.items():
            self._require(
                word and word == word.strip().lower() and code in codes,
                f"word {word!r} for {code!r}; valid: text in lower case, without spaces around it, "
                f"for {known}",
            )

    def _check_range(self) -> None:
        low, high = self.minimum, self.maximum
        if low is None or high is None:
            raise ValueError(f"field {self.name}: no range; valid: minimum and maximum, or codes")
        self._require(low <= high, f"minimum {low} is above maximum {high}")
        largest = max(abs(low), abs(high))
        limit = FLOAT32_LARGEST if self.decimal else FLOAT32_EXACT_INTEGER
        self._require(
            not largest > limit,
            f"{largest} cannot be held exactly by float32; valid: at most {limit}",
        )
        self._require(
            self.decimal or not (low % 1 or high % 1),
            f"range {low}..{high}; valid: whole numbers, or decimal=True",
        )

    @property
    def kind(self) -> Kind:
        if self.codes is not None:
            return "code"
        return "decimal" if self.decimal else "whole"

    @property
    def label(self) -> str:
        """The description without its remark in parentheses, with a capital letter."""
        text = self.description.partition(" (")[0]
        return text[:1].upper() + text[1:]

    @property
    def is_text(self) -> bool:
        """Whether the values are text codes."""
        return self.codes is not None and isinstance(next(iter(self.codes)), str)

    @cached_property
    def code_numbers(self) -> dict[Code, float]:
        """The decision graph's input for each code; empty for a field without codes."""
        return {
            code: float(place if self.is_text else code)
            for place, code in enumerate(self.codes or ())
        }

    @property
    def valid(self) -> str:
        """Valid values, in words."""
        or_nothing = "" if self.required else ", or nothing"
        if self.codes is not None:
            codes = list(self.codes) if self.is_text else sorted(self.codes)
            return "one of " + ", ".join(str(code) for code in (*codes, *self.words)) + or_nothing
        number = "a number" if self.decimal else "a whole number"
        return (
            f"{number} from {self.minimum} to {self.maximum}"
            + (f" ({self.unit})" if self.unit else "")
            + or_nothing
        )


@dataclass(frozen=True)
class Feature:
    """Column of the feature matrix; `monotone` is +1 if more of it may only raise the risk, -1 if
    it may only lower it.
    """

    name: str
    monotone: int = 0


@dataclass(frozen=True)
class Reason:
    """Reason for an adverse decision: a stable code, the text for the customer, and its fields."""

    code: str
    text: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class DecisionWords:
    """Words for the two sides of the cut-off, each to follow "by the cut-off:".

    The default says only where the PD lies. A portfolio of applications may use
    `DecisionWords("approved", "refused", "approval rate")`.

    Attributes:
        below: a PD under the cut-off, prediction 0.
        above: a PD at or above it, prediction 1.
        rate: share of the PDs under it.
    """

    below: str = "not flagged"
    above: str = "flagged"
    rate: str = "share not flagged"


@dataclass(frozen=True, eq=False)
class Portfolio:
    """Definition of one book of customers.

    Attributes:
        name: short and stable; every bundle carries it.
        title: description for people.
        identifier: column that names the customer.
        target: column of the outcome, 1 = bad.
        target_description: definition of bad, and when it is observed.
        fields: the record, in the order of the decision graph's input columns.
        protected: fields that no feature may use; they serve monitoring only.
        features: columns of the feature matrix.
        compute_features: array-API code from the raw matrix (rows x fields, float32, contract
            order) to the feature matrix (rows x features, float32). A row's bits must not depend
            on its neighbours or on the processor: use element-wise operations, and reductions only
            where their order cannot matter.
        performance_window_days: days of data from a decision until its outcome can be known.
        reasons: 1 to 6; every unprotected field belongs to exactly one of them. Correlated fields
            belong together.
        example: a customer for documentation.
        intended_use: purpose of the model's decisions, for the model card.
        limits: limits of the PD's meaning, one sentence each, for the model card.
        simulator: dotted path of a function `(rows, seed, first_identifier) -> DataFrame` of
            identifier, fields and target, or None. It is a path so that serving needs no pandas.
        words: words for decisions.
        exposure: field of the amount that may be owed in a default, such as the limit, or None.
        target_words: texts for 0 and 1 in files of outcomes and history, in upper or lower case:
            `{"good": 0, "bad": 1}`.
        published_names: alternative canonical column names of whole files, mapped to the contract's
            columns; see `contract_names`.
        owner: person or unit that answers for the model, for model card and inventory.
        developer: person or unit that develops it.
        validator: person or unit that validates it, independently of the developer.
        loss_given_default: LGD, share of the exposure that a default costs, 0 to 1: an assumption.
        exposure_share: share of the exposure field that is owed in a default, 0 to 1: an
            assumption.
        grade_bounds: 1 to 25 rising PDs between the grades A, B, C and so on.
        data_weekdays: weekdays on which data comes, 1 Monday to 7 Sunday.
        late_days: business days that are over and were not scored without an alarm.
        segments: segmentations by which monitoring judges the customers, too.

    Raises:
        ValueError: if its parts contradict each other; the message names the part.
    """

    name: str
    title: str
    identifier: str
    target: str
    target_description: str
    fields: tuple[Field, ...]
    protected: tuple[str, ...]
    features: tuple[Feature, ...]
    compute_features: Callable[[Any], Any]
    performance_window_days: int
    reasons: tuple[Reason, ...]
    example: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    simulator: str | None = None
    exposure: str | None = None
    target_words: Mapping[str, int] = field(default_factory=dict)
    published_names: Mapping[str, str] = field(default_factory=dict)
    words: DecisionWords = DecisionWords()
    owner: str = "not assigned"
    developer: str = "not assigned"
    validator: str = "not assigned"
    loss_given_default: float = 0.75
    exposure_share: float = 1.0
    grade_bounds: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50)
    data_weekdays: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    late_days: int = 1
    segments: tuple[Segmentation, ...] = ()

    def __post_init__(self) -> None:
        names = self.field_names
        columns = [self.identifier, self.target, *names]
        self._require_unique("column", columns)
        self._require_unique("feature", self.feature_names)
        for name in (self.identifier, self.target):
            self._require(
                name == canonical_name(name) and name not in RESERVED_NAMES,
                f"column {name!r}; valid: a canonical name that is not reserved",
            )
        unknown = sorted({*self.protected, *self.example} - set(names))
        self._require(not unknown, f"{', '.join(unknown)} is no field; valid: {', '.join(names)}")
        amounts = [field.name for field in self.fields if field.codes is None]
        self._require(
            self.exposure is None or self.exposure in amounts,
            f"exposure {self.exposure!r}; valid: one of {', '.join(amounts)}, or None",
        )
        with_words = [field.name for field in self.fields if field.words]
        self._require(
            not with_words,
            f"words of {', '.join(with_words)}; valid: of the target (target_words)",
        )
        _ = self.target_field  # checks its words
        self._check_assumptions()
        self._check_segments()
        published = {*self.published_names.values()}
        self._require(
            published <= {*columns} and (not published or {*names} <= published),
            f"published_names {dict(self.published_names)}; valid: a name for each field, and "
            "perhaps for identifier and target",
        )
        reason_fields = [name for reason in self.reasons for name in reason.fields]
        self._require_unique("field in the reasons", reason_fields)
        self._require_unique("reason code", [reason.code for reason in self.reasons])
        self._require(
            1 <= len(self.reasons) <= REASON_GROUPS_LIMIT,
            f"{len(self.reasons)} reasons; valid: 1 to {REASON_GROUPS_LIMIT}",
        )
        wrong = sorted({*reason_fields} ^ ({*names} - {*self.protected}))
        self._require(
            not wrong,
            f"reasons and fields differ in {', '.join(wrong)}; valid: every field but the "
            "protected ones",
        )

    def _check_assumptions(self) -> None:
        bounds = self.grade_bounds
        rising = list(bounds) == sorted({*bounds}) and 1 <= len(bounds) <= 25
        self._require(
            rising and 0 < bounds[0] <= bounds[-1] < 1,
            f"grade_bounds {bounds}; valid: 1 to 25 rising PDs between 0 and 1",
        )
        for name in ("loss_given_default", "exposure_share"):
            share = getattr(self, name)
            self._require(0 <= share <= 1, f"{name} {share}; valid: 0 to 1")
        self._require(
            self.data_weekdays and {*self.data_weekdays} <= {*range(1, 8)},
            f"data_weekdays {self.data_weekdays}; valid: numbers from 1, Monday, to 7, Sunday",
        )

    def _check_segments(self) -> None:
        self._require_unique("segmentation", [one.name for one in self.segments])
        for segmentation in self.segments:
            try:
                segmentation.require_fits(self.fields)
            except ValueError as error:
                raise ValueError(f"portfolio {self.name}: {error}") from error
        count = sum(len(one.segments(self.fields)) for one in self.segments)
        self._require(
            count <= SEGMENTS_LIMIT, f"{count} segments; valid: at most {SEGMENTS_LIMIT} in all"
        )

    def _require(self, valid: object, message: str) -> None:
        _require(valid, f"portfolio {self.name}: {message}")

    def _require_unique(self, what: str, names: Sequence[str]) -> None:
        repeated = _repeated(names)
        self._require(not repeated, f"{what} {', '.join(repeated)} stands twice; valid: each once")

    @cached_property
    def field_names(self) -> list[str]:
        """Names of the fields in the order of the decision graph's input columns."""
        return [field.name for field in self.fields]

    @cached_property
    def feature_names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @cached_property
    def monotone_constraints(self) -> list[int]:
        return [feature.monotone for feature in self.features]

    @cached_property
    def target_field(self) -> Field:
        return Field(
            self.target,
            self.target_description,
            codes={0: "good", 1: "bad"},
            words=self.target_words,
        )

    def contract_names(self, names: Sequence[str]) -> list[str]:
        """Translate a file's column names into those of the contract.

        Published names are translated if each field has its published name and none its own;
        otherwise the names stay.

        Args:
            names: canonical column names of the file.
        """
        published = self.published_names
        fields = {*self.field_names}
        if (
            not published
            or fields & {*names}
            or not fields <= {published.get(name) for name in names}
        ):
            return list(names)
        translated = [published.get(name, name) for name in names]
        return translated if len({*translated}) == len(translated) else list(names)

    def is_header(self, names: Sequence[str]) -> bool:
        """Whether canonical names include every field in the contract's spelling."""
        return {*self.field_names} <= {*names}


def _require(valid: object, message: str) -> None:
    if not valid:
        raise ValueError(message)


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def missing_columns(
    names: Sequence[str], required: Sequence[str], optional: Sequence[str] = ()
) -> str | None:
    """Message about columns that a file lacks; None if it lacks none.

    Args:
        names: the file's columns, from `Portfolio.contract_names`.
        required: columns that must be present.
        optional: columns that are read if present.
    """
    lacking = [name for name in required if name not in names]
    if not lacking:
        return None
    unused = [name for name in names if name not in required and name not in optional]
    candidates = [name for name in unused[:NAMES_COMPARED] if len(name) <= NAME_SHOWN]
    near = [
        f"{found[0]} is there and not used: is it {name}?"
        for name in lacking[:NAMES_SHOWN]
        if (found := difflib.get_close_matches(name, candidates, n=1, cutoff=NEAR_NAME))
    ]
    others = (
        f"the file's other columns: {_shown(unused)}" if unused else "the file has no other columns"
    )
    plural = "s" if len(lacking) > 1 else ""
    return (
        f"missing column{plural} {', '.join(lacking)}; {'; '.join([*near, others])}; valid: "
        f"{', '.join(required)}"
    )


def _shown(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(name[:NAME_SHOWN] for name in names[:NAMES_SHOWN]) + (
        f" and {more} more" if more > 0 else ""
    )


def canonical_name(header: str) -> str:
    """Canonical spelling of a column header: `Loan.Amount`, `LOAN_AMOUNT` and `loan amount` all
    become `loan_amount`.
    """
    return re.sub(r"[^a-z0-9]+", "_", header.strip().lower()).strip("_")


def canonical_names(headers: Sequence[str]) -> list[str]:
    """Canonical spelling of a file's headers; a header without letters and digits becomes
    `column_<place>`.

    Raises:
        ValueError: if two headers mean the same column.
    """
    names = [
        canonical_name(header) or f"column_{place}" for place, header in enumerate(headers, start=1)
    ]
    if repeated := _repeated(names):
        raise ValueError(f"the header names a column twice: {', '.join(repeated)}")
    return names
