"""Whether a day's batch gives the customers of the API the PDs that the API gave them, bit
for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from creditrisk_assets.decisions.sets import DECISION_ID

PD = "default_probability"
BUNDLE = "bundle_sha256"


@dataclass(frozen=True)
class OnlineAgreement:
    """The decisions of the API of one day beside its batch.

    Attributes:
        decisions: of the API.
        compared: those whose customer is in the batch with the same record, decided by the same
            bundle.
        other_bundle: those with the same record that another bundle decided: another champion, or
            the fallback.
        other_record: those whose customer is in the batch with another record, which came later or
            in a file.
        not_in_batch: those whose customer is not in the batch.
        differing: ids of the compared decisions whose PD differs from the batch's in any bit.
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
    """Compare.

    Args:
        live: decisions of the API: decision_id, identifier, fields, default_probability,
            bundle_sha256.
        batch: what the day's batch says of the same customers: the same columns, each customer
            once.
        identifier: name of the customer column.
        fields: of the record. A decision is compared with a row of the same record only: a customer
            may have asked twice.
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
    told, scored = (compared[name].to_numpy(dtype=np.float64) for name in (PD, f"{PD}_batch"))
    differs = told.view(np.int64) != scored.view(np.int64)
    return OnlineAgreement(
        decisions=len(live),
        compared=len(compared),
        other_bundle=int((same_record & ~same_bundle).sum()),
        other_record=int((there & ~same_record).sum()),
        not_in_batch=int((~there).sum()),
        differing=tuple(compared.loc[differs, DECISION_ID]),
        largest=float(np.abs(told - scored)[differs].max(initial=0.0)),
    )
