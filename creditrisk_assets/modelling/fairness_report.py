"""Report of `creditrisk fairness`: figures by group of held-out customers, and proxies."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from creditrisk_assets.modelling.decision_graph import feature_matrix
from creditrisk_assets.modelling.fairness import FieldFigures, fairness_by_group, protected_groups
from creditrisk_assets.modelling.proxies import ProxyFigures, proxies
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.sampling import is_held_out
from creditrisk_assets.scoring.bundle import Bundle


@dataclass(frozen=True)
class FairnessReport:
    """Figures by group on `rows` held-out customers, `bads` of them bad, and proxies on all
    `proxy_rows` customers.
    """

    bundle_sha256: str
    cut_off: float
    rows: int
    bads: int
    fields: list[FieldFigures]
    proxy_rows: int
    proxies: list[ProxyFigures]


def fairness_report(
    bundle: Bundle,
    customers: pd.DataFrame,
    portfolio: Portfolio,
    on_progress: Callable[[str], None],
) -> FairnessReport:
    """Report on a bundle: figures on held-out customers, and proxies by cross-validation on all.

    Args:
        bundle: the model.
        customers: identifier, fields and target.
        portfolio: contract of the customers.
        on_progress: called with each protected field when its proxies are done.

    Raises:
        BundleError: if the bundle does not fit the portfolio.
    """
    bundle.require_fits(portfolio)
    raw = bundle.raw(customers)
    groups = protected_groups(portfolio, dict(zip(bundle.input_names, raw.T, strict=True)))
    held_out = is_held_out(customers[portfolio.identifier])
    target = customers[portfolio.target].to_numpy(dtype=np.int64)[held_out]
    held_out_groups = {name: grouping.part(held_out) for name, grouping in groups.items()}
    return FairnessReport(
        bundle_sha256=bundle.sha256,
        cut_off=bundle.manifest.cut_off,
        rows=len(target),
        bads=int(target.sum()),
        fields=fairness_by_group(target, bundle.score(raw[held_out]), held_out_groups),
        proxy_rows=len(raw),
        proxies=proxies(
            feature_matrix(portfolio, raw_matrix(customers, portfolio.fields)), groups, on_progress
        ),
    )
