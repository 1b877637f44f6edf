"""Tries a customer: the champion's answer, and its answers with better values of some fields.

A trial is not a decision: it is not logged and has no id. A reason's fields get the values of the
reference profile of the rule in force, a customer just under the cut-off, which the reasons compare
with. A field is only changed in the direction that the contract names as helpful: the profile may
have paid less in some month, and the page must not advise to pay less.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.portfolio.contract import Code, Portfolio
from creditrisk_assets.portfolio.encoding import record_of
from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, Decisions
from serving.http.schemas import Alternative, FieldChanged, ReasonTried, WhatIfResponse
from serving.inference.champion_holder import LoadedChampion

FloatRows = NDArray[np.float32]
Value = Code | float | None
"""The value of a field; None if it is empty."""


def what_if(
    champion: LoadedChampion, customer: Mapping[str, Any], portfolio: Portfolio
) -> WhatIfResponse:
    """Try a customer. Every number comes from the bundle, as `/predict` would give it.

    Args:
        champion: the model.
        customer: valid values by input.
        portfolio: names the helpful direction of each field.
    """
    bundle, rule = champion.bundle, champion.record.rule
    raw = bundle.raw({name: [customer[name]] for name in bundle.input_names})
    decision = bundle.decide(raw, rule)
    reasons = [
        next(reason for reason in bundle.manifest.reasons if reason.code == code)
        for code in bundle.reason_codes(decision)[0]
    ]
    changeable = _changeable(bundle, raw[0], rule, portfolio)
    by_reason = [[name for name in reason.fields if name in changeable] for reason in reasons]
    alternatives = _alternatives(champion, raw, by_reason)
    trials = tuple(
        ReasonTried(code=reason.code, text=reason.text, instead=alternative)
        for reason, alternative in zip(reasons, alternatives, strict=True)
    )
    effective = [
        fields
        for fields, alternative in zip(by_reason, alternatives, strict=True)
        if alternative is not None
    ]
    all_fields = [[name for fields in effective for name in fields]] if len(effective) > 1 else []
    together = next(iter(_alternatives(champion, raw, all_fields)), None)
    return WhatIfResponse(
        **_outcome(decision, 0),
        reasons=trials,
        together=together,
        model_version=champion.record.model_version,
        bundle_sha256=bundle.sha256,
        cut_off=rule.cut_off,
    )


def _changeable(
    bundle: Bundle, values: FloatRows, rule: DecisionRule, portfolio: Portfolio
) -> set[str]:
    """The inputs that differ from the reference profile, except where the contract names the change
    as harmful.
    """
    helps = {field.name: field.helps for field in portfolio.fields}
    changeable = set()
    for name, value, reference in zip(
        bundle.input_names, values.tolist(), rule.reference, strict=True
    ):
        target = math.nan if reference is None else reference
        same = value == target or (math.isnan(value) and math.isnan(target))
        harmful = (helps.get(name) == "more" and target < value) or (
            helps.get(name) == "less" and target > value
        )
        if not (same or harmful):
            changeable.add(name)
    return changeable


def _alternatives(
    champion: LoadedChampion, raw: FloatRows, changes: Sequence[Sequence[str]]
) -> list[Alternative | None]:
    """The answers on a customer with fields of the reference profile, one for each list of fields;
    None if the change does not lower the PD.

    Args:
        champion: the model.
        raw: the customer, 1 x inputs.
        changes: lists of fields.
    """
    if not changes:
        return []
    bundle, rule = champion.bundle, champion.record.rule
    reference = np.array(rule.reference, dtype=np.float32)
    changed = np.repeat(raw, len(changes), axis=0)
    for row, names in enumerate(changes):
        places = [bundle.input_names.index(name) for name in names]
        changed[row, places] = reference[places]
    probability = float(bundle.decide(raw, rule).default_probability[0])
    decisions = bundle.decide(changed, rule)
    before = record_of(raw[0].tolist(), bundle.manifest.inputs)
    after = record_of(rule.reference, bundle.manifest.inputs)
    return [
        Alternative(
            **_outcome(decisions, row),
            changes=tuple(
                FieldChanged(field=name, given=before[name], instead=after[name]) for name in names
            ),
        )
        if decisions.default_probability[row] < probability
        else None
        for row, names in enumerate(changes)
    ]


def _outcome(decisions: Decisions, row: int) -> dict[str, Any]:
    return {
        "default_probability": float(decisions.default_probability[row]),
        "score": float(decisions.score[row]),
        "prediction": int(decisions.prediction[row]),
    }
