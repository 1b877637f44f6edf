"""How true the reasons are: `python -m benchmarks.scoring.reasons --data FILE`.

A model is trained as always; the declined among the held-out customers are decided with reasons.
The contributions that the graph gives are compared with group Shapley values computed here from
their definition, over every order of the groups, by scoring each coalition with the other graph.
Two cheaper rules stand beside them: one group put back alone, and the mean of that and of one group
put in alone.
"""

import argparse
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.landing.history import read_history
from creditrisk_assets.modelling.bundling import make_bundle
from creditrisk_assets.modelling.datasets import history_set, with_features
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.settings import Settings

FloatArray = NDArray[np.float64]
ROWS = 1_000


def main() -> None:
    """Print the agreement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        required=True,
        help="a CSV or Parquet file with the portfolio's columns and the outcome",
    )
    arguments = parser.parse_args()
    portfolio = Settings().portfolio
    learning = history_set(
        with_features(read_history(arguments.data, portfolio).rows.accepted, portfolio), portfolio
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(
            Path(folder), portfolio, learning.fit, learning.held_out, "history", []
        )
        report(bundle, portfolio, learning.held_out.raw)


def report(bundle: Bundle, portfolio: Portfolio, raw: NDArray[np.float32]) -> None:
    """Print the agreement on the first declined rows."""
    rule = bundle.manifest.rule
    decisions = bundle.decide(raw, rule)
    declined = raw[decisions.prediction == 1][:ROWS]
    reference = np.array([rule.reference], dtype=np.float32)
    values = coalition_values(bundle, portfolio, declined, reference)
    groups = len(portfolio.reasons)
    exact = shapley(values, groups)
    contributions, reasons = bundle.reasons_session.run(
        ["contributions", "reasons"], {"raw": declined, "reference": reference}
    )
    everyone = frozenset(range(groups))
    put_back = np.stack(
        [values[everyone] - values[everyone - {group}] for group in range(groups)], axis=1
    )
    put_in = np.stack(
        [values[frozenset({group})] - values[frozenset()] for group in range(groups)], axis=1
    )
    print(
        f"{len(declined)} declined held-out customers, cut-off {rule.cut_off:.4f}, {groups} "
        f"groups, {2**groups} coalitions"
    )
    print(
        f"PD of the reference profile {float(bundle.score(reference).default_probability[0]):.4f}"
    )
    print(
        "largest difference of a contribution from the definition: "
        f"{np.abs(contributions - exact).max():.1e} log-odds"
    )
    first = (reasons[:, 0] == exact.argmax(axis=1)).mean()
    print(
        f"reasons given: first one is the largest exact value {first:.3f}, top three overlap "
        f"{named(reasons, exact):.3f}"
    )
    for name, values_of in (
        ("put back alone", put_back),
        ("mean of put back and put in", (put_back + put_in) / 2),
    ):
        top = (values_of.argmax(axis=1) == exact.argmax(axis=1)).mean()
        print(
            f"{name}: largest is the same {top:.3f}, top three overlap "
            f"{named(ranked(values_of), exact):.3f}"
        )
    pairs = [
        (row, place)
        for row, places in enumerate(reasons.tolist())
        for place in places
        if place >= 0
    ]
    lower = np.mean([put_back[row, place] > 0 for row, place in pairs])
    print(
        f"{len(pairs)} reasons given, {len(pairs) / len(declined):.2f} a customer; put back alone, "
        f"{lower:.1%} lower the PD"
    )


def coalition_values(
    bundle: Bundle, portfolio: Portfolio, rows: NDArray[np.float32], reference: NDArray[np.float32]
) -> dict[frozenset[int], FloatArray]:
    """Log-odds with the groups of each coalition as in the record and the others as in the
    reference.
    """
    columns = [
        [portfolio.field_names.index(name) for name in reason.fields]
        for reason in portfolio.reasons
    ]
    values = {}
    for size in range(len(columns) + 1):
        for coalition in itertools.combinations(range(len(columns)), size):
            mixed = rows.copy()
            for group in set(range(len(columns))) - set(coalition):
                mixed[:, columns[group]] = reference[0, columns[group]]
            probability = bundle.score(mixed).default_probability
            values[frozenset(coalition)] = np.log(probability) - np.log1p(-probability)
    return values


def shapley(values: dict[frozenset[int], FloatArray], groups: int) -> FloatArray:
    """The mean gain of each group over all orders in which the groups are put in: rows x groups."""
    gains = np.zeros((len(values[frozenset()]), groups))
    for order in itertools.permutations(range(groups)):
        before: frozenset[int] = frozenset()
        for group in order:
            gains[:, group] += values[before | {group}] - values[before]
            before |= {group}
    return gains / math.factorial(groups)


def ranked(values: FloatArray) -> NDArray[np.int64]:
    """Groups that raise the risk in order of their values, then -1: rows x groups."""
    order = np.argsort(-values, axis=1, kind="stable")
    return np.where(np.take_along_axis(values, order, axis=1) > 0, order, -1)


def named(reasons: NDArray[np.int64], exact: FloatArray) -> float:
    """Of the up to three groups with the largest exact positive values, the mean share that is
    among the first three reasons.
    """
    shares = []
    for first, largest in zip(reasons[:, :3].tolist(), ranked(exact)[:, :3].tolist(), strict=True):
        expected = {place for place in largest if place >= 0}
        shares.append(len(expected & set(first)) / len(expected) if expected else 1.0)
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
