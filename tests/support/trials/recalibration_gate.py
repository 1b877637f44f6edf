"""How often the gate is wrong about a recalibration: promotions where the champion's PDs are right,
and power where they are not.

One champion is fitted to a simulated history. In each trial customers that it has not seen are
drawn anew, three quarters of them to recalibrate on and a quarter to judge by, as the hash of the
identifier divides them. Their outcomes are drawn from the champion's own PDs, moved as the case
says, so that the truth is known; in one case they are the simulator's. The champion is recalibrated
as `candidate_model` does it, and both sides go through every test that the gate makes of their
answers.

The figures go to `docs/recalibration-gate.json`, and from there into the marked block of
`docs/promotion-gate.md`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from creditrisk_assets.governance.gate_tests import Comparison, compare
from creditrisk_assets.modelling.calibration import least_update
from creditrisk_assets.modelling.datasets import training_rows, with_features
from creditrisk_assets.modelling.fairness import Groups, jeffreys_interval, protected_groups
from creditrisk_assets.modelling.recalibration import recalibrated_cut_off
from creditrisk_assets.modelling.training import fit, predict
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.trials.promotion_gate import (
    answers,
    training_history,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SEED = 6
POOL_ROWS = 60_000
BADS = (50, 100, 400)
RIGHT_TRIALS, TRIALS = 4_000, 1_000
BEGIN = "<!-- results: written by python -m benchmarks.governance.recalibration_gate -->"
END = "<!-- end of recalibration results -->"


@dataclass(frozen=True)
class Truth:
    """How outcomes come about: true log-odds = intercept + slope * the champion's, with the
    intercept that makes the bad rate `times` the one that the champion's PDs say. Without a slope
    they are the simulator's.
    """

    name: str
    times: float = 1.0
    slope: float | None = 1.0


RIGHT = Truth("the PDs are right")
TRUTHS = (
    RIGHT,
    Truth("outcomes of the simulator", slope=None),
    Truth("bad rate x 1.25", times=1.25),
    Truth("bad rate x 1.5", times=1.5),
    Truth("bad rate / 1.5", times=1 / 1.5),
    Truth("slope 0.8: PDs too bold", slope=0.8),
    Truth("slope 0.6: PDs far too bold", slope=0.6),
    Truth("slope 1.4: PDs too timid", slope=1.4),
)


@dataclass(frozen=True)
class Pool:
    """Customers that the champion has not seen: its log-odds, its cut-off, the simulator's
    outcomes, the groups of each.
    """

    log_odds: FloatArray
    cut_off: float
    target: IntArray
    groups: Groups

    def probability(self, truth: Truth) -> FloatArray:
        """The PD of each under a truth; the simulator's outcome itself where that is the truth."""
        if truth.slope is None:
            return self.target.astype(np.float64)
        stretched = truth.slope * self.log_odds
        wanted = truth.times * float(expit(self.log_odds).mean())
        return np.asarray(
            expit(
                stretched + brentq(lambda by: float(expit(stretched + by).mean()) - wanted, -10, 10)
            )
        )


@dataclass(frozen=True)
class Cell:
    """So many trials of one truth: how many promoted, how many passed each test, how many changed
    what, how many had no line.
    """

    truth: str
    bads: int
    rows: int
    trials: int
    promoted: int
    passed: dict[str, int]
    updates: dict[str, int]


def fitted_pool() -> Pool:
    """The champion of a simulated history, and what it says of other customers."""
    fitted = fit(PORTFOLIO, training_history(SEED + 1), seed=SEED)
    customers = with_features(simulate(POOL_ROWS, SEED, 10_000_000), PORTFOLIO)
    rows = training_rows(customers, PORTFOLIO, 1)
    numbers = {name: customers[name].to_numpy(dtype=np.float32) for name in PORTFOLIO.protected}
    log_odds = np.asarray(logit(predict(fitted, rows.features)))
    return Pool(log_odds, fitted.cut_off, rows.target, protected_groups(PORTFOLIO, numbers))


def counted(pool: Pool, truth: Truth, bads: int, trials: int, limits: GateLimits) -> Cell:
    """Recalibrate and judge again and again; the same arguments give the same counts.

    Args:
        pool: whom to draw from.
        truth: how outcomes come about.
        bads: expected among the customers who judge.
        trials: how often.
        limits: of the gate.
    """
    rng = np.random.default_rng([SEED, bads, TRUTHS.index(truth)])
    probability = pool.probability(truth)
    rows = round(bads / float(probability.mean()))
    promoted, passed, updates = 0, dict[str, int](), dict[str, int]()
    for _ in range(trials):
        drawn = rng.choice(len(probability), 4 * rows, replace=False)
        target = (rng.random(4 * rows) < probability[drawn]).astype(np.int64)
        fitted, judging = slice(rows, None), drawn[:rows]
        update = least_update(pool.log_odds[drawn[fitted]], target[fitted])
        updates[update.kind] = updates.get(update.kind, 0) + 1
        old = pool.log_odds[judging]
        new = update.intercept + update.slope * old
        sides = (
            answers(expit(new), recalibrated_cut_off(pool.cut_off, update)),
            answers(expit(old), pool.cut_off),
        )
        groups = {name: grouping.part(judging) for name, grouping in pool.groups.items()}
        tests = compare(Comparison(target[:rows], *sides, groups), limits, recalibration=True)
        promoted += update.slope > 0 and all(test.passed for test in tests)
        for test in tests:
            passed[test.name] = passed.get(test.name, 0) + test.passed
    return Cell(truth.name, bads, rows, trials, promoted, passed, updates)


def block(results: dict[str, Any]) -> str:
    """The figures as Markdown; every number in it comes from the results."""
    cells = [Cell(**cell) for cell in results["cells"]]
    trials = {cell.truth == RIGHT.name: cell.trials for cell in cells}
    truths = dict.fromkeys(cell.truth for cell in cells)
    lines = [
        f"Seed {results['seed']}, {trials[True]:,} trials a cell of the first line, "
        f"{trials[False]:,} of the others, intervals of 95 % (Jeffreys). One fit on "
        f"{results['history_rows']:,} simulated customers; trials drawn from "
        f"{results['pool_rows']:,} others, whose bad rate is {results['pool_bad_rate']:.4f} and "
        f"whose mean PD is {results['pool_mean_pd']:.4f}. The bads are those expected among the "
        "customers who judge; three times as many customers are recalibrated on. In brackets the "
        "share that passes `likelihood_is_greater`, then the share whose update is the intercept "
        "/ intercept and slope.",
        "",
        "| outcomes | " + " | ".join(f"{bads:,} bads" for bads in BADS) + " |",
        "|---|" + "---|" * len(BADS),
        *(
            f"| {name} | " + " | ".join(_shown(cell) for cell in cells if cell.truth == name) + " |"
            for name in truths
        ),
    ]
    return "\n".join(lines)


def _shown(cell: Cell) -> str:
    low, high = jeffreys_interval(cell.promoted, cell.trials)
    likelier = cell.passed["likelihood_is_greater"] / cell.trials
    shift, both = (
        cell.updates.get(kind, 0) / cell.trials for kind in ("intercept", "intercept and slope")
    )
    return (
        f"{cell.promoted / cell.trials:.1%}, {low:.1%} to {high:.1%} ({likelier:.1%}; {shift:.0%} "
        f"/ {both:.0%})"
    )
