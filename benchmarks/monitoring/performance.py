"""How good the estimates without outcomes are, how often the checks of performance are wrong, and
how soon they see a change.

    python -m benchmarks.monitoring.performance estimates --data FILE [--rival-python PATH]
    python -m benchmarks.monitoring.performance stationary
    python -m benchmarks.monitoring.performance detection

`estimates` is about real customers: a champion is trained on half of a file, and days are drawn,
    with replacement, from customers
that it has not seen. With `--rival-python`, the Python of an environment that has nannyml,
NannyML's CBPE estimates the same days; unlike ours it is given labelled customers to calibrate on.
`stationary` and `detection` are about simulated customers, scored by champions that were trained on
other simulated customers; each year has an AUC at validation of its own, drawn like every other.
"""

import argparse
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.landing.history import read_history
from creditrisk_assets.modelling.datasets import training_rows, with_features
from creditrisk_assets.modelling.fairness import (
    Groups,
    impact_by_group,
    jeffreys_interval,
    protected_groups,
)
from creditrisk_assets.modelling.metrics import Z95, auc_with_error
from creditrisk_assets.modelling.training import TrainingRows, fit, predict
from creditrisk_assets.monitoring.estimated_performance import expected_auc, expected_performance
from creditrisk_assets.monitoring.performance import (
    day_figures,
    estimate_test,
    level_tests,
    ranking_tests,
    spans_of,
)
from creditrisk_assets.portfolio.encoding import raw_matrix
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.settings import Settings
from creditrisk_assets.simulation.card_customers import simulate
from creditrisk_assets.simulation.scenarios import redraw_outcomes, risk_index

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HISTORY_ROWS = 15_000
POOL_ROWS = 200_000
VALIDATION_ROWS = 5_000
CHAMPIONS = 5
DAYS_A_YEAR = 365
QUARTER = 365 / 4
STATIONARY_DAYS = 14
CHANGED_DAYS = 14
RANKING, LEVEL, ESTIMATE, FAIRNESS = "ranking", "level", "estimated AUC", "fairness"


@dataclass(frozen=True)
class Pool:
    """Customers that a champion has scored and not learned from, in order of their PD: outcomes,
    PDs, and who they are.
    """

    target: IntArray
    probability: FloatArray
    groups: Groups
    cut_off: float
    customers: pd.DataFrame

    @classmethod
    def of(cls, customers: pd.DataFrame, probability: FloatArray, cut_off: float) -> "Pool":
        """Customers in any order."""
        order = np.argsort(probability, kind="stable")
        ordered = customers.iloc[order].reset_index(drop=True)
        protected = [one for one in PORTFOLIO.fields if one.name in PORTFOLIO.protected]
        numbers = {
            one.name: row
            for one, row in zip(protected, raw_matrix(ordered, protected).T, strict=True)
        }
        target = ordered[PORTFOLIO.target].to_numpy(dtype=np.int64)
        return cls(
            target, probability[order], protected_groups(PORTFOLIO, numbers), cut_off, ordered
        )

    def drawn(self, rows: int, rng: np.random.Generator) -> IntArray:
        """Places of the customers of a day, in order of their PD."""
        return np.sort(rng.integers(0, len(self.target), rows))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    estimates = parts.add_parser("estimates", help="CBPE against what is realised")
    estimates.add_argument(
        "--data",
        required=True,
        help="a CSV or Parquet file with the portfolio's columns and the outcome",
    )
    estimates.add_argument("--rival-python", help="the Python of an environment with nannyml")
    estimates.add_argument(
        "--splits",
        type=int,
        default=3,
        help="halvings of the file, each with a champion of its own",
    )
    estimates.add_argument(
        "--days", type=int, default=100, help="days of each size and kind from each halving"
    )
    estimates.add_argument(
        "--rows", type=int, nargs="+", default=[200, 500, 2_000], help="customers a day"
    )
    stationary = parts.add_parser(
        "stationary", help="false alarms of years in which nothing happens"
    )
    stationary.add_argument(
        "--rows", type=int, nargs="+", default=[200, 500, 5_000, 50_000], help="customers a day"
    )
    stationary.add_argument("--repeats", type=int, default=20, help="years")
    detection = parts.add_parser("detection", help="days of outcomes until a change is found")
    detection.add_argument("--rows", type=int, nargs="+", default=[500], help="customers a day")
    detection.add_argument("--repeats", type=int, default=200)
    for part in (estimates, stationary, detection):
        part.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    started = time.monotonic()
    if options.part == "estimates":
        report_estimates(options)
    elif options.part == "stationary":
        report_stationary(options.rows, options.repeats, options.seed)
    else:
        report_detection(options.rows, options.repeats, options.seed)
    print(f"\nseed {options.seed}, {time.monotonic() - started:.0f} s")


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """As markdown."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{cell:.4f}" if isinstance(cell, float) else f"{cell}" for cell in row)
            + " |",
            flush=True,
        )


# Estimates


def report_estimates(options: argparse.Namespace) -> None:
    """Mean absolute errors and coverages over days of all halvings."""
    customers = with_features(read_history(options.data, PORTFOLIO).rows.accepted, PORTFOLIO)
    parts = []
    for split in range(options.splits):
        rng = np.random.default_rng([options.seed, split])
        order = rng.permutation(len(customers))
        half = len(order) // 2
        places = np.split(order, [half, half + VALIDATION_ROWS])
        learned, reference, rest = (customers.iloc[one] for one in places)
        fitted = fit(PORTFOLIO, training_rows(learned, PORTFOLIO, 1))
        labelled, pool = (
            Pool.of(one, predicted(fitted, one), fitted.cut_off) for one in (reference, rest)
        )
        at_validation = auc_with_error(labelled.target, labelled.probability)[0]
        for kind, weight, target in kinds_of_days(pool, rng):
            for rows in options.rows:
                drawn = [rng.choice(len(weight), rows, p=weight) for _ in range(options.days)]
                table = pd.DataFrame(
                    [
                        estimated_day(target[one], pool.probability[one], at_validation)
                        for one in drawn
                    ]
                )
                if options.rival_python:
                    table = table.join(
                        rival(options.rival_python, labelled, pool, target, drawn, rows)
                    )
                parts.append(table.assign(kind=kind, rows=rows))
    days = pd.concat(parts)
    half_told = f"{half:,} customers to learn from, {len(rest):,} to draw days from"
    print(f"{options.splits} halvings, {half_told}, {options.days} days each\n")
    shown: list[list[object]] = []
    for kind_and_rows, cell in days.groupby(["kind", "rows"], sort=False):
        cell_kind, cell_rows = kind_and_rows
        shown.append(
            [
                cell_kind,
                cell_rows,
                len(cell),
                "ours",
                *figures_of(cell, "auc"),
                *figures_of(cell, "bad_rate"),
            ]
        )
        shown.append(
            [
                "",
                "",
                "",
                "AUC at validation",
                (cell["auc_at_validation"] - cell["auc"]).abs().mean(),
                *[""] * 5,
            ]
        )
        if options.rival_python:
            missed = (cell["rival_auc"] - cell["auc"]).abs()
            within = float((missed <= Z95 * cell["rival_auc_error"]).mean())
            own = float(cell["auc"].between(cell["rival_auc_low"], cell["rival_auc_high"]).mean())
            bad_rate = cell["rival_bad_rate"] - cell["bad_rate"]
            name = f"NannyML; its own bounds hold {own:.3f}"
            bias = float((cell["rival_auc"] - cell["auc"]).mean())
            shown.append(
                [
                    "",
                    "",
                    "",
                    name,
                    missed.mean(),
                    bias,
                    within,
                    bad_rate.abs().mean(),
                    bad_rate.mean(),
                    "",
                ]
            )
    head = [
        "days",
        "customers",
        "number",
        "estimate",
        "AUC: mean absolute error",
        "bias",
        "95 % intervals hold",
    ]
    print_table([*head, "bad rate: mean absolute error", "bias", "95 % intervals hold"], shown)
    chance = days.groupby(["kind", "rows"], sort=False)[
        ["auc_error", "bad_rate_error"]
    ].mean() * np.sqrt(2 / np.pi)
    print("\nmean absolute error that chance in the outcomes alone gives:\n")
    print_table(
        ["days", "customers", "AUC", "bad rate"],
        [[*name, *row] for name, row in zip(chance.index, chance.to_numpy().tolist(), strict=True)],
    )


def predicted(fitted: object, customers: pd.DataFrame) -> FloatArray:
    """PDs of customers with features."""
    return predict(fitted, training_rows(customers, PORTFOLIO, 1).features)  # type: ignore[arg-type]


def kinds_of_days(
    pool: Pool, rng: np.random.Generator
) -> Iterator[tuple[str, FloatArray, IntArray]]:
    """Weight of each customer, and outcome, for each kind of days."""
    same = np.full(len(pool.target), 1 / len(pool.target))
    yield "as in training", same, pool.target
    for name, strength in (("safer customers", -1.0), ("riskier customers", 1.0)):
        weight = np.exp(strength * risk_index(PORTFOLIO, pool.customers))
        yield name, weight / weight.sum(), pool.target
    drifted = redraw_outcomes(PORTFOLIO, pool.customers, 0.5, rng)
    yield "concept drift", same, drifted[PORTFOLIO.target].to_numpy(dtype=np.int64)


def estimated_day(
    target: IntArray, probability: FloatArray, at_validation: float
) -> dict[str, float]:
    """Realised and estimated figures of one day."""
    expected = expected_performance(probability)
    return {
        "auc": auc_with_error(target, probability)[0],
        "bad_rate": float(target.mean()),
        "estimated_auc": expected["roc_auc"].value,
        "auc_error": expected["roc_auc"].standard_error,
        "estimated_bad_rate": expected["bad_rate"].value,
        "bad_rate_error": expected["bad_rate"].standard_error,
        "auc_at_validation": at_validation,
    }


def figures_of(days: pd.DataFrame, name: str) -> list[float]:
    """Mean absolute error, bias and coverage of our estimates."""
    missed = days[f"estimated_{name}"] - days[name]
    held = float((missed.abs() <= Z95 * days[f"{name}_error"]).mean())
    return [float(missed.abs().mean()), float(missed.mean()), held]


def rival(
    python: str, labelled: Pool, pool: Pool, target: IntArray, places: list[IntArray], rows: int
) -> pd.DataFrame:
    """NannyML's estimates of the same days."""

    def table(outcome: IntArray, probability: FloatArray) -> pd.DataFrame:
        return pd.DataFrame(
            {"y": outcome, "p": probability, "d": (probability >= pool.cut_off).astype(np.int64)}
        )

    every = np.concatenate(places)
    with tempfile.TemporaryDirectory() as folder:
        names = [
            str(Path(folder, name))
            for name in ("reference.parquet", "days.parquet", "answers.parquet")
        ]
        table(labelled.target, labelled.probability).to_parquet(names[0])
        table(target[every], pool.probability[every]).to_parquet(names[1])
        script = Path(__file__).with_name("nannyml_cbpe.py")
        command = [python, "-W", "ignore", str(script), names[0], names[1], str(rows), names[2]]
        subprocess.run(command, check=True, capture_output=True)
        return pd.read_parquet(names[2]).add_prefix("rival_")


# False alarms and detection


def champions(number: int, seed: int) -> list[Pool]:
    """Champions of different histories, each with the same pool of customers that it has scored."""
    customers = with_features(simulate(POOL_ROWS, seed, 10_000_000), PORTFOLIO)
    features = training_rows(customers, PORTFOLIO, 1).features
    pools = []
    for one in range(number):
        history: TrainingRows = training_rows(
            with_features(simulate(HISTORY_ROWS, seed + 1 + one), PORTFOLIO), PORTFOLIO, 1
        )
        fitted = fit(PORTFOLIO, history)
        pools.append(Pool.of(customers, predict(fitted, features), fitted.cut_off))
    return pools


def validation_of(pool: Pool, rng: np.random.Generator) -> dict[str, float]:
    """The figures of a champion at validation, on customers drawn like all others."""
    places = pool.drawn(VALIDATION_ROWS, rng)
    auc, error = auc_with_error(pool.target[places], pool.probability[places])
    return {"roc_auc": auc, "roc_auc_standard_error": error}


class Watch:
    """The checks of one champion, day after day, as the assets run them.

    Args:
        pool: whose champion it is.
        settings: of the checks.
        rng: for its figures at validation.
    """

    def __init__(self, pool: Pool, settings: Settings, rng: np.random.Generator) -> None:
        self._pool = pool
        self._settings = settings
        self._validation = validation_of(pool, rng)
        self._days: deque[dict[str, float]] = deque(maxlen=settings.policy.performance.days)
        self._decided: deque[IntArray] = deque(maxlen=30)

    def matured(self, target: IntArray, probability: FloatArray) -> dict[str, bool]:
        """Whether each check on outcomes fails on one more day."""
        limits = self._settings.policy.performance
        alpha, floor = limits.alpha, limits.floor
        self._days.append(day_figures(target, probability))
        spans = spans_of([*self._days], limits.days)
        tests = {
            RANKING: ranking_tests(spans, self._validation, alpha, floor),
            LEVEL: level_tests(spans, alpha, floor),
        }
        return {
            name: not all(one.passed for one in of_spans.values())
            for name, of_spans in tests.items()
        }

    def decided(self, places: IntArray) -> dict[str, bool]:
        """Whether each check on decisions fails on one more day, by the places of its customers
        in the pool.
        """
        pool, settings = self._pool, self._settings
        expected = expected_auc(pool.probability[places])
        held = estimate_test(
            expected,
            self._validation,
            settings.policy.performance.alpha,
            settings.policy.performance.floor,
        )
        self._decided.appendleft(places)
        counted = np.cumsum([len(one) for one in self._decided])
        days = int(np.searchsorted(counted, settings.policy.fairness.rows)) + 1
        together_places = np.concatenate([*self._decided][:days])
        groups = {name: one.part(together_places) for name, one in pool.groups.items()}
        impacts = impact_by_group(pool.probability[together_places] < pool.cut_off, groups)
        return {
            ESTIMATE: not held.passed,
            FAIRNESS: any(one.high < settings.policy.gate.fairness_floor for one in impacts),
        }


def report_stationary(sizes: Sequence[int], repeats: int, seed: int) -> None:
    """Days on which a check fails although nothing happens."""
    settings = Settings()
    pools = champions(CHAMPIONS, seed)
    for number, pool in enumerate(pools):
        auc = auc_with_error(pool.target, pool.probability)[0]
        gap = float(pool.target.mean() - pool.probability.mean())
        whole = impact_by_group(pool.probability < pool.cut_off, pool.groups)
        lowest = min(whole, key=lambda one: one.ratio)
        fairness = (
            f"smallest adverse-impact ratio {lowest.ratio:.3f} ({lowest.field} {lowest.group})"
        )
        print(f"champion {number + 1}: AUC {auc:.4f}, bad rate less mean PD {gap:+.4f}, {fairness}")
    print(
        f"\n{repeats} years of {DAYS_A_YEAR} days, spans of up to "
        f"{settings.policy.performance.days} days\n"
    )
    print_table(
        [
            "customers a day",
            "check",
            "failed days a quarter",
            "95 % interval",
            "alarms a quarter",
            "years with any",
        ],
        [],
    )
    for rows in sizes:
        failed = {
            name: np.zeros((repeats, DAYS_A_YEAR), dtype=bool)
            for name in (RANKING, LEVEL, ESTIMATE, FAIRNESS)
        }
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, rows, repeat])
            pool = pools[repeat % len(pools)]
            watch = Watch(pool, settings, rng)
            for day in range(DAYS_A_YEAR):
                places = pool.drawn(rows, rng)
                for name, failure in {
                    **watch.matured(pool.target[places], pool.probability[places]),
                    **watch.decided(places),
                }.items():
                    failed[name][repeat, day] = failure
        for name, days in failed.items():
            begun = days & ~np.pad(days, ((0, 0), (1, 0)))[:, :-1]
            a_year = days.sum(axis=1) * QUARTER / DAYS_A_YEAR
            reach = (
                Z95 * float(a_year.std(ddof=1)) / np.sqrt(repeats) if repeats > 1 else float("nan")
            )
            interval = f"{max(0.0, a_year.mean() - reach):.3f} to {a_year.mean() + reach:.3f}"
            alarms = begun.sum() / repeats * QUARTER / DAYS_A_YEAR
            print_rows(
                [
                    [
                        rows,
                        name,
                        f"{a_year.mean():.3f}",
                        interval,
                        f"{alarms:.3f}",
                        f"{days.any(axis=1).sum()} of {repeats}",
                    ]
                ]
            )


def report_detection(sizes: Sequence[int], repeats: int, seed: int) -> None:
    """Days of outcomes, after a fortnight in which nothing happened, until a check fails."""
    settings = Settings()
    pools = champions(CHAMPIONS, seed)
    head = [
        "change",
        "customers a day",
        "bad rate",
        "AUC",
        "check",
        "found by day 1",
        "by 3",
        "by 3: 95 % interval",
        "by 7",
        "by 14",
    ]
    print(
        f"{repeats} repeats, {len(pools)} champions, spans of up to "
        f"{settings.policy.performance.days} days\n"
    )
    print_table(head, [])
    changes = [
        changes_of(pool, np.random.default_rng([seed, number])) for number, pool in enumerate(pools)
    ]
    truths = [
        truth_of(pool, of_pool, np.random.default_rng(seed))
        for pool, of_pool in zip(pools, changes, strict=True)
    ]
    for rows in sizes:
        found: dict[str, list[dict[str, int]]] = {}
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, rows, repeat])
            pool = pools[repeat % len(pools)]
            for name, (weight, target) in changes[repeat % len(pools)].items():
                found.setdefault(name, []).append(
                    days_until(pool, weight, target, rows, settings, rng)
                )
        for name, firsts in found.items():
            bad_rate, auc = np.mean([truth[name] for truth in truths], axis=0).tolist()
            for check in (RANKING, LEVEL, "either"):
                first = np.array([one[check] for one in firsts])
                by = [float((first <= days).mean()) for days in (1, 3, 7, 14)]
                low, high = jeffreys_interval(int((first <= 3).sum()), repeats)
                print_rows(
                    [
                        [
                            name,
                            rows,
                            f"{bad_rate:.3f}",
                            f"{auc:.3f}",
                            check,
                            by[0],
                            by[1],
                            f"{low:.3f} to {high:.3f}",
                            by[2],
                            by[3],
                        ]
                    ]
                )


def print_rows(rows: Sequence[Sequence[object]]) -> None:
    """Further rows of a table."""
    for row in rows:
        print(
            "| "
            + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else f"{cell}" for cell in row)
            + " |",
            flush=True,
        )


def changes_of(pool: Pool, rng: np.random.Generator) -> dict[str, tuple[FloatArray, IntArray]]:
    """Weight of each customer, and outcome, under each change."""
    same = np.full(len(pool.target), 1 / len(pool.target))
    bad_rate = float(pool.target.mean())
    more_bads = np.where(pool.target == 1, 1.5, (1 - 1.5 * bad_rate) / (1 - bad_rate)) * same
    turned = (np.minimum(1.5 * pool.probability, 1) - pool.probability) / (1 - pool.probability)
    worse = np.where(rng.random(len(same)) < turned, 1, pool.target).astype(np.int64)
    changes = {
        "nothing": (same, pool.target),
        "bad rate x 1.5, bads and goods look as before": (more_bads / more_bads.sum(), pool.target),
        "bad rate x 1.5, the same customers": (same, worse),
    }
    for share in (0.25, 0.5):
        drifted = redraw_outcomes(PORTFOLIO, pool.customers, share, rng)[PORTFOLIO.target].to_numpy(
            dtype=np.int64
        )
        changes[f"concept drift, {share:.0%} of the outcomes"] = (same, drifted)
    return changes


def truth_of(
    pool: Pool, changes: dict[str, tuple[FloatArray, IntArray]], rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Bad rate and AUC of the pool's champion under each change, on 100,000 customers."""
    truths = {}
    for name, (weight, target) in changes.items():
        drawn = rng.choice(len(weight), 100_000, p=weight)
        truths[name] = (
            float(target[drawn].mean()),
            auc_with_error(target[drawn], pool.probability[drawn])[0],
        )
    return truths


def days_until(
    pool: Pool,
    weight: FloatArray,
    target: IntArray,
    rows: int,
    settings: Settings,
    rng: np.random.Generator,
) -> dict[str, int]:
    """The first changed day on which each check, and either, fails; `CHANGED_DAYS + 1` if
    none does.
    """
    watch = Watch(pool, settings, rng)
    for _ in range(STATIONARY_DAYS):
        places = pool.drawn(rows, rng)
        watch.matured(pool.target[places], pool.probability[places])
    never = CHANGED_DAYS + 1
    first = {RANKING: never, LEVEL: never, "either": never}
    cumulative = np.cumsum(weight)
    for day in range(1, CHANGED_DAYS + 1):
        places = np.sort(np.searchsorted(cumulative, rng.random(rows) * cumulative[-1]))
        failed = watch.matured(target[places], pool.probability[places])
        for name, failure in {**failed, "either": any(failed.values())}.items():
            if failure:
                first[name] = min(first[name], day)
    return first


if __name__ == "__main__":
    main()
