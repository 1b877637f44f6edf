"""A trial: what the champion would say of a customer, and what it would say if the reasons were put
right.

A trial is not a decision: nothing is logged, and it has no id. "Put right" means that a reason's
    fields are as those of the
reference profile of the rule in force, a customer just under the cut-off, whom the reasons compare
with. A field is only moved the way that the contract says helps: that customer may have paid less
in some month, and nobody is told to pay less.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Code, Portfolio
from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, Decisions
from serving.inference.champion_holder import LoadedChampion

FloatRows = NDArray[np.float32]
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
    """A reason for the risk, and the answer if its fields alone were put right; None where no
    change that helps lowers the PD.
    """

    code: str
    text: str
    instead: Alternative | None


@dataclass(frozen=True)
class Trial(Outcome):
    """The answer on the customer, its reasons, the strongest first, and the answer if all of them
    were put right together; None where fewer than two can be.
    """

    reasons: tuple[ReasonTried, ...]
    together: Alternative | None


def what_if(champion: LoadedChampion, customer: Mapping[str, Any], portfolio: Portfolio) -> Trial:
    """Try a customer. Every number is the bundle's own, as `/predict` would give it on such a
    record.

    Args:
        champion: that is asked.
        customer: for each input its value, as the contract allows it.
        portfolio: says of each field which way helps.
    """
    bundle, rule = champion.bundle, champion.record.rule
    raw = bundle.raw({name: [customer[name]] for name in bundle.input_names})
    own = bundle.decide(raw, rule)
    named = [
        next(one for one in bundle.manifest.reasons if one.code == code)
        for code in bundle.reason_codes(own)[0]
    ]
    movable = _movable(bundle, raw[0], rule, portfolio)
    by_reason = [[name for name in reason.fields if name in movable] for reason in named]
    alternatives = _alternatives(champion, raw, by_reason)
    tried = tuple(
        ReasonTried(one.code, one.text, by) for one, by in zip(named, alternatives, strict=True)
    )
    put_right = [
        fields for fields, by in zip(by_reason, alternatives, strict=True) if by is not None
    ]
    all_of_them = [[name for fields in put_right for name in fields]] if len(put_right) > 1 else []
    together = next(iter(_alternatives(champion, raw, all_of_them)), None)
    return Trial(**_outcome(own, 0), reasons=tried, together=together)


def _movable(
    bundle: Bundle, given: FloatRows, rule: DecisionRule, portfolio: Portfolio
) -> set[str]:
    """The inputs that the reference profile has otherwise, in a way that the contract says helps,
    or of which it says nothing.
    """
    helps = {field.name: field.helps for field in portfolio.fields}
    movable = set()
    for name, was, instead in zip(bundle.input_names, given.tolist(), rule.reference, strict=True):
        wanted = math.nan if instead is None else instead
        same = was == wanted or (math.isnan(was) and math.isnan(wanted))
        harmful = (helps.get(name) == "more" and wanted < was) or (
            helps.get(name) == "less" and wanted > was
        )
        if not (same or harmful):
            movable.add(name)
    return movable


def _alternatives(
    champion: LoadedChampion, raw: FloatRows, changes: Sequence[Sequence[str]]
) -> list[Alternative | None]:
    """The answers on a customer with some fields as in the reference profile, one for each list of
    fields; None where that does not lower the PD.

    Args:
        champion: that is asked.
        raw: the customer, 1 x inputs.
        changes: names of fields.
    """
    if not changes:
        return []
    bundle, rule = champion.bundle, champion.record.rule
    reference = np.array(rule.reference, dtype=np.float32)
    changed = np.repeat(raw, len(changes), axis=0)
    for row, names in enumerate(changes):
        places = [bundle.input_names.index(name) for name in names]
        changed[row, places] = reference[places]
    own = float(bundle.decide(raw, rule).default_probability[0])
    decided = bundle.decide(changed, rule)
    given = record_of(raw[0].tolist(), bundle.manifest.inputs)
    wanted = record_of(rule.reference, bundle.manifest.inputs)
    return [
        Alternative(
            **_outcome(decided, row),
            changes=tuple(FieldChange(name, given[name], wanted[name]) for name in names),
        )
        if decided.default_probability[row] < own
        else None
        for row, names in enumerate(changes)
    ]


def _outcome(decisions: Decisions, row: int) -> dict[str, Any]:
    return {
        "default_probability": float(decisions.default_probability[row]),
        "score": float(decisions.score[row]),
        "prediction": int(decisions.prediction[row]),
    }
