"""A trial: what the champion would say of a customer, and what it would say if the reasons were put right.

A trial is not a decision: nothing is logged, and it has no id. "Put right" means that a reason's fields are as those of the
reference profile of the rule in force, a customer just good enough to be approved, whom the reasons compare with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from creditrisk_assets.portfolio.contract import Code
from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import Decisions, ReasonText
from serving.champion import LoadedChampion

Value = Code | float | None
"""What a field may hold; None where it is left empty."""


@dataclass(frozen=True)
class FieldChange:
    """A field, what was given, and what it would be instead."""

    field: str
    given: Value
    instead: Value


@dataclass(frozen=True)
class Outcome:
    """PD (0..1), points, and prediction (1 = default)."""

    default_probability: float
    score: float
    prediction: int


@dataclass(frozen=True)
class Alternative(Outcome):
    """The answer on the customer with some fields changed."""

    changes: tuple[FieldChange, ...]


@dataclass(frozen=True)
class ReasonTried:
    """A reason for the risk, and the answer if its fields alone were put right."""

    code: str
    text: str
    instead: Alternative


@dataclass(frozen=True)
class Trial(Outcome):
    """The answer on the customer, its reasons, the strongest first, and the answer if all of them were put right together; None
    where that says no more than the one reason, or there is none.
    """

    reasons: tuple[ReasonTried, ...]
    together: Alternative | None


def what_if(champion: LoadedChampion, customer: Mapping[str, Any]) -> Trial:
    """Try a customer. Every number is the bundle's own, as `/predict` would give it on such a record.

    Args:
        champion: that is asked.
        customer: for each input its value, as the contract allows it.
    """
    bundle, rule = champion.bundle, champion.record.rule
    raw = bundle.raw({name: [customer[name]] for name in bundle.input_names})
    own = bundle.decide(raw, rule)
    named = [next(one for one in bundle.manifest.reasons if one.code == code) for code in bundle.reason_codes(own)[0]]
    put_right = [[one] for one in named] + ([named] if len(named) > 1 else [])
    reference = np.array(rule.reference, dtype=np.float32)
    changed = np.repeat(raw, len(put_right), axis=0)
    for row, reasons in enumerate(put_right):
        places = [bundle.input_names.index(name) for reason in reasons for name in reason.fields]
        changed[row, places] = reference[places]
    decided = bundle.decide(changed, rule)
    given = record_of(raw[0].tolist(), bundle.manifest.inputs)
    wanted = record_of(rule.reference, bundle.manifest.inputs)
    alternatives = [_alternative(decided, row, _changes(reasons, given, wanted)) for row, reasons in enumerate(put_right)]
    return Trial(
        **_outcome(own, 0),
        reasons=tuple(ReasonTried(one.code, one.text, by) for one, by in zip(named, alternatives, strict=False)),
        together=alternatives[-1] if len(named) > 1 else None,
    )


def _outcome(decisions: Decisions, row: int) -> dict[str, Any]:
    return {
        "default_probability": float(decisions.default_probability[row]),
        "score": float(decisions.score[row]),
        "prediction": int(decisions.prediction[row]),
    }


def _alternative(decisions: Decisions, row: int, changes: tuple[FieldChange, ...]) -> Alternative:
    return Alternative(**_outcome(decisions, row), changes=changes)


def _changes(reasons: Sequence[ReasonText], given: Mapping[str, Value], wanted: Mapping[str, Value]) -> tuple[FieldChange, ...]:
    names = [name for reason in reasons for name in reason.fields]
    return tuple(FieldChange(name, given[name], wanted[name]) for name in names if given[name] != wanted[name])
