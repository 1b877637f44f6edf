"""Bit-for-bit comparison of the API's PDs with the day's batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from creditrisk_assets.decisions.sets import DECISION_ID

PD = "default_probability"
BUNDLE = "bundle_sha256"


@dataclass(frozen=True)
class OnlineAgreement:
    """The API's decisions of one day against its batch.

    Attributes:
        decisions: number of the API's decisions.
        compared: those with the same customer, record and bundle in the batch.
        other_bundle: those with the same record that another bundle decided: another champion, or
            the fallback.
        other_record: those whose customer has another record in the batch, which came later or in a
            file.
        not_in_batch: those whose customer is not in the batch.
        differing: ids of the compared decisions whose PD differs in any bit.
        largest: the largest difference among them; NaN where a PD is missing.
    """

    decisions: int
    compared: int
    other_bundle: int
    other_record: int
    not_in_batch: int
    differing: tuple[str, ...]
    largest: float


def online_agreement(
    live: pd.DataFrame, batch: pd.DataFrame, identifier: str, fields: Sequence[str]
) -> OnlineAgreement:
    """Compare the API's decisions with the batch rows of the same record: a customer may have
    several records in a day.

    Args:
        live: the API's decisions: decision_id, identifier, fields, default_probability,
            bundle_sha256.
        batch: the same columns of the day's batch, each customer once.
        identifier: name of the customer column.
        fields: of the record.
    """
    pairs = live.merge(
        batch,
        on=identifier,
        how="left",
        suffixes=("", "_batch"),
        validate="many_to_one",
        indicator="found",
    )
    there = (pairs["found"] == "both").to_numpy()
    same_record = there.copy()
    for field in fields:
        own, other = pairs[field], pairs[f"{field}_batch"]
        same_record &= ((own == other) | (own.isna() & other.isna())).to_numpy(dtype=bool)
    same_bundle = (pairs[BUNDLE] == pairs[f"{BUNDLE}_batch"]).to_numpy(dtype=bool)
    compared = pairs[same_record & same_bundle]
    online, scored = (compared[name].to_numpy(dtype=np.float64) for name in (PD, f"{PD}_batch"))
    differs = online.view(np.int64) != scored.view(np.int64)
    return OnlineAgreement(
        decisions=len(live),
        compared=len(compared),
        other_bundle=int((same_record & ~same_bundle).sum()),
        other_record=int((there & ~same_record).sum()),
        not_in_batch=int((~there).sum()),
        differing=tuple(compared.loc[differs, DECISION_ID]),
        largest=float(np.abs(online - scored)[differs].max(initial=0.0)),
    )
