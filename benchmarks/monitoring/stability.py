"""How often the drift checks are wrong, and how soon they are right, beside a fixed line for PSI
and Evidently's default preset.

    python -m benchmarks.monitoring.stability stationary     # years in which nothing happens
    python -m benchmarks.monitoring.stability practical      # shifts of practical size at 500
    customers a day python -m benchmarks.monitoring.stability scenarios      # what the drill
    lands, at three strengths python -m benchmarks.monitoring.stability rules          # the rules
    among which the checks' was chosen python -m benchmarks.monitoring.stability all            #
    one after the other, in the same worlds

Each repeat is a world of its own: a history of 20,000 customers, of which 75 % train a champion as
    in production, and days
drawn from customers that it has not seen. What is counted is every day on which any of score,
features and data quality is an alarm, by the same functions that the checks call; that they say the
same as the asset's own table is asserted on some days of each run. `--data` takes the customers
of a file instead of simulated ones.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

from benchmarks.monitoring.drift_rivals import (
    LINE,
    SHARE,
    EvidentlyDefault,
    agrees_with_evidently,
)
from benchmarks.monitoring.drift_worlds import (
    IntArray,
    Pool,
    World,
    columns_of,
    draw,
    pooled,
    worlds,
)
from creditrisk_assets.monitoring.drift_rule import (
    quality_verdicts,
    stability_verdicts,
)
from creditrisk_assets.monitoring.drift_table import day_counts, drift_table
from creditrisk_assets.monitoring.population_stability import divergence
from creditrisk_assets.policy import DriftLimits
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.reference_profile import SCORE, ColumnCounts
from creditrisk_assets.simulation.scenarios import (
    Plan,
    customers_of,
    day_of_customers,
    simulated_customers,
)

BoolArray = NDArray[np.bool_]

SEED = 100
POOL_ROWS = 200_000
RIVAL_ROWS = 50_000
"""Customers of the pool that the days of Evidently are drawn from: its distances cost a pass over
all their values.
"""
SIZES = (200, 500, 5_000, 50_000)
RIVAL_REPEATS = 5
ROWS_A_DAY = 500
QUARTER = 365.25 / 4
QUIET = 6
"""Days before a shift."""
STRENGTHS = (0.5, 1.0, 2.0)
SEASON = 30
LIMITS = DriftLimits()
RULES = ("ours", "PSI > 0.25", "PSI > 0.10", "Evidently, any column", "Evidently, data set")


def main() -> None:
    """Run a part and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--repeats", type=int, help="worlds; by default 20, 10 for the shifts")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--data", type=Path, help="customers of this file with outcomes, instead of simulated ones"
    )
    options = parser.parse_args()
    source = options.data.name if options.data else "simulated customers"
    for part in PARTS if options.part == "all" else [options.part]:
        started = time.monotonic()
        for line in PARTS[part](options):
            print(line, flush=True)
        print(
            f"\n{part}: {time.monotonic() - started:.0f} s, seed {options.seed}, {source}.\n",
            flush=True,
        )


def begun(make: Callable[[], World], number: int, repeats: int) -> World:
    """A world, with a line of progress."""
    print(
        f"world {number + 1} of {repeats}, {time.process_time():.0f} s of processor",
        file=sys.stderr,
        flush=True,
    )
    return make()


def alarms(world: World, pool: Pool, cells: IntArray) -> BoolArray:
    """The days (cells: days x cells) on which any check is an alarm: the day alone or together
    with those before it.
    """
    spans = sorted({1, LIMITS.days})
    shared = LIMITS.model_copy(update={"alpha": LIMITS.alpha / len(spans)})
    found = np.zeros(len(cells), dtype=bool)
    for span in spans:
        actual, strange = columns_of(pooled(cells, span), pool.layout)
        found |= stability_verdicts(world.expected, actual, shared).drifted.any(axis=-1)
        rows = actual[0].sum(axis=-1)
        bad = np.zeros((*strange.shape[:-1], 3 * strange.shape[-1] - 2))
        coded = np.array([column.codes is not None for column in world.profile.columns])
        before = np.zeros(bad.shape[-1])
        for number in range(1, strange.shape[-1]):
            first = (
                3 * number - 2
            )  # after the rejected rows: missing values, out of range, new codes of each input
            before[first + 1] = 1
            bad[..., first + 1 + int(coded[number])] = strange[..., number]
        found |= quality_verdicts(
            bad, rows[..., None], before, world.profile.effective_rows, shared
        ).failed.any(axis=-1)
    return found


def table_says(world: World, pool: Pool, cells: IntArray) -> bool:
    """Whether the asset's own table holds an alarm for the last of some days."""
    days = []
    for day in cells:
        actual, strange = columns_of(day, pool.layout)
        rows = int(actual[0].sum())
        counts = {}
        for column, bins, bad in zip(world.profile.columns, actual, strange.tolist(), strict=True):
            outside, new = (0, bad) if column.codes is not None else (bad, 0)
            counts[column.name] = ColumnCounts(bins, 0 if column.name == SCORE else outside, new)
        days.append(day_counts(counts, rows, 0))
    table = drift_table(world.profile, days[-1], days[-2::-1], LIMITS)
    return bool(table["drifted"].any() or table["broken"].any())


def fixed_line(world: World, pool: Pool, cells: IntArray, line: float) -> BoolArray:
    """The days on which PSI of any column is above a line."""
    actual, _ = columns_of(cells, pool.layout)
    exceeded: BoolArray = np.any(
        [
            divergence(want, have).value > line
            for want, have in zip(world.expected, actual, strict=True)
        ],
        axis=0,
    )
    return exceeded


def verdicts_of(world: World, pool: Pool, cells: IntArray) -> dict[str, BoolArray]:
    """Verdict of each rule that goes by counts on each day."""
    return {
        "ours": alarms(world, pool, cells),
        "PSI > 0.25": fixed_line(world, pool, cells, 0.25),
        "PSI > 0.10": fixed_line(world, pool, cells, 0.10),
    }


def rival_says(distances: Any) -> dict[str, BoolArray]:
    """Verdict of Evidently's default preset on days (days x columns)."""
    share = (np.asarray(distances) >= LINE).mean(axis=-1)
    return {"Evidently, any column": share > 0, "Evidently, data set": share >= SHARE}


def stationary(options: argparse.Namespace) -> list[str]:
    """False alarms: days with any alarm, per quarter of a year."""
    repeats = options.repeats or 20
    rates: dict[tuple[str, int], list[float]] = {}
    largest = 0.0
    for number, make in enumerate(worlds(repeats, options.seed, options.data)):
        world = begun(make, number, repeats)
        pool = world.pool(world.customers(POOL_ROWS, options.seed + 10_000 + number))
        rng = np.random.default_rng([options.seed, number])
        for size in SIZES:
            cells = draw(pool, options.days, size, rng)
            verdicts = verdicts_of(world, pool, cells)
            for day in range(2, options.days, options.days // 3):
                assert table_says(world, pool, cells[day - 2 : day + 1]) == verdicts["ours"][day]
            for rule, days in verdicts.items():
                rates.setdefault((rule, size), []).append(float(days.mean()) * QUARTER)
        if number < RIVAL_REPEATS:
            values = pool.values[:RIVAL_ROWS]
            rival = EvidentlyDefault.of(world, values)
            for size in SIZES:
                days = options.days if size < SIZES[-1] else options.days // 4
                chosen = [rng.integers(0, len(values), size) for _ in range(days)]
                if number < 2 and size < SIZES[-1]:
                    largest = max(largest, agrees_with_evidently(world, rival, values, chosen[0]))
                for rule, alarmed in rival_says([rival.distances(one) for one in chosen]).items():
                    rates.setdefault((rule, size), []).append(float(alarmed.mean()) * QUARTER)
    lines = [
        f"{repeats} repeats of {options.days} days; Evidently {min(RIVAL_REPEATS, repeats)} "
        f"repeats, at {SIZES[-1]:,} a day {options.days // 4} days each. Distances computed "
        f"here and in Evidently's own report differ by at most {largest:.1e}.",
        "",
        "| days with a false alarm per quarter, mean (worst repeat) | "
        + " | ".join(f"{size:,} a day" for size in SIZES)
        + " |",
        "|---|" + "---|" * len(SIZES),
    ]
    for rule in RULES:
        found = [rates[rule, size] for size in SIZES]
        lines.append(
            f"| {rule} | "
            + " | ".join(f"{np.mean(one):.2f} ({max(one):.2f})" for one in found)
            + " |"
        )
    return lines


def practical_shifts() -> dict[str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]]:
    """Shifts that somebody would want to know of, done to customers."""

    def later(share: float) -> Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]:
        def shift(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
            hit = rng.random(len(frame)) < share
            return frame.assign(
                pay_0=np.where(hit, np.minimum(frame["pay_0"] + 1, 9), frame["pay_0"])
            )

        return shift

    def limit(factor: float) -> Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]:
        return lambda frame, _: frame.assign(
            limit_bal=(frame["limit_bal"] * factor).round().astype("int64")
        )

    return {
        "LIMIT_BAL x 1.3": limit(1.3),
        "LIMIT_BAL x 1.15": limit(1.15),
        "20 % of PAY_0 one step worse": later(0.2),
        "10 % of PAY_0 one step worse": later(0.1),
    }


@dataclass
class Found:
    """For each rule the day, from 1, of the first alarm after a shift; 0 where there was none."""

    days: dict[str, list[int]]

    def add(self, verdicts: dict[str, BoolArray], onset: int) -> None:
        """Of one repeat."""
        for rule, alarmed in verdicts.items():
            after = np.flatnonzero(alarmed[onset:])
            self.days.setdefault(rule, []).append(int(after[0]) + 1 if len(after) else 0)

    def within(self, rule: str, days: int) -> float:
        """The share that was found in so many days."""
        return float(np.mean([0 < one <= days for one in self.days[rule]]))

    def median(self, rule: str) -> str:
        """The median of the days until it was found; none where fewer than half were."""
        ordered = sorted(one or 10**9 for one in self.days[rule])
        middle = ordered[(len(ordered) - 1) // 2]
        return "none" if middle == 10**9 else str(middle)


def shifted(
    world: World,
    quiet: Pool,
    changed: list[Pool],
    days: int,
    repeats: int,
    rivals: bool,
    rng: np.random.Generator,
    found: Found,
) -> None:
    """Repeats of some quiet days and then shifted ones, the pools of the latter in turn."""
    values = np.concatenate([quiet.values[:20_000], *[pool.values for pool in changed]])
    rival = EvidentlyDefault.of(world, values) if rivals else None
    for _ in range(repeats):
        pools = [changed[day % len(changed)] for day in range(days)]
        picks = [rng.integers(0, len(pool.places), ROWS_A_DAY) for pool in pools]
        before = draw(quiet, QUIET, ROWS_A_DAY, rng)
        cells = np.concatenate(
            [before, [pool.day(pick) for pool, pick in zip(pools, picks, strict=True)]]
        )
        found.add(verdicts_of(world, quiet, cells), QUIET)
        if rival is not None:
            starts = np.cumsum(
                [min(20_000, len(quiet.values)), *[len(pool.values) for pool in changed]]
            )
            distances = [
                rival.distances(starts[day % len(changed)] + pick) for day, pick in enumerate(picks)
            ]
            found.add(rival_says(distances), 0)


def practical(options: argparse.Namespace) -> list[str]:
    """How soon shifts of practical size are found."""
    repeats = options.repeats or 10
    shifts = practical_shifts()
    found = {name: Found({}) for name in shifts}
    for number, make in enumerate(worlds(repeats, options.seed, options.data)):
        world = begun(make, number, repeats)
        rng = np.random.default_rng([options.seed, number])
        customers = world.customers(POOL_ROWS, options.seed + 10_000 + number)
        quiet = world.pool(customers.iloc[: POOL_ROWS // 2])
        for name, shift in shifts.items():
            moved = world.pool(shift(customers.iloc[-20_000:], rng))
            shifted(world, quiet, [moved], 10, 200 // repeats, True, rng, found[name])
    lines = [
        f"{ROWS_A_DAY} customers a day, {200 // repeats * repeats} repeats in {repeats} worlds. "
        "Found within 1, 3 and 10 days, in %.",
        "",
        "| shift | " + " | ".join(RULES) + " |",
        "|---|" + "---|" * len(RULES),
    ]
    for name, one in found.items():
        shares = [
            " / ".join(f"{one.within(rule, days):.0%}" for days in (1, 3, 10)).replace("%", "")
            for rule in RULES
        ]
        lines.append(f"| {name} | " + " | ".join(shares) + " |")
    return lines


def scenarios(options: argparse.Namespace) -> list[str]:
    """Days until an alarm, for what the drill lands."""
    repeats = options.repeats or 5
    names = ("covariate-shift", "prior-shift", "seasonal", "concept-drift", "burst")
    found: dict[tuple[str, float], Found] = {}
    source = None
    for number, make in enumerate(worlds(repeats, options.seed, options.data)):
        world = begun(make, number, repeats)
        rng = np.random.default_rng([options.seed, number])
        quiet = world.pool(world.customers(POOL_ROWS // 2, options.seed + 10_000 + number))
        draws = simulated_customers(PORTFOLIO)
        if options.data:
            source = world.customers(80_000, options.seed + 20_000 + number)
            draws = customers_of(source)
        for scenario in names:
            for strength in STRENGTHS:
                days = SEASON if scenario == "seasonal" else 1
                rows = 4_000 if scenario in ("seasonal", "burst") else 15_000
                plan = Plan(
                    scenario,
                    datetime.date(2025, 1, 1),
                    days,
                    rows,
                    strength,
                    options.seed + number,
                    0,
                    30,
                )
                changed = [
                    world.pool(day_of_customers(plan, PORTFOLIO, draws, offset))
                    for offset in range(days)
                ]
                one = found.setdefault((scenario, strength), Found({}))
                shifted(world, quiet, changed, 30, 100 // repeats, True, rng, one)
    lines = [
        f"{ROWS_A_DAY} customers a day, {100 // repeats * repeats} repeats in {repeats} worlds, 30 "
        "days from the onset. Median of the days until the first alarm; in brackets found "
        "within 3 and within 30 days, in %.",
        "",
        "| scenario | strength | " + " | ".join(RULES) + " |",
        "|---|---|" + "---|" * len(RULES),
    ]
    for (scenario, strength), one in found.items():
        cells = [
            f"{one.median(rule)} ({one.within(rule, 3):.0%} / {one.within(rule, 30):.0%})".replace(
                "%", ""
            )
            for rule in RULES
        ]
        lines.append(f"| {scenario} | {strength:g} | " + " | ".join(cells) + " |")
    return lines


def rules(options: argparse.Namespace) -> list[str]:
    """The rules among which ours was chosen, on the same days: stability alone, the floor in
    each.
    """
    repeats = options.repeats or 10
    chosen: dict[str, Callable[[World, Pool, IntArray], BoolArray]] = {
        "each day alone": lambda world, pool, cells: over_spans(world, pool, cells, (1,)),
        "2 of 3 days, each at 0.02": lambda world, pool, cells: k_of_n(
            world, pool, cells, 2, 3, 0.02
        ),
        "3 of 5 days, each at 0.05": lambda world, pool, cells: k_of_n(
            world, pool, cells, 3, 5, 0.05
        ),
        "3 days pooled": lambda world, pool, cells: over_spans(world, pool, cells, (3,)),
        "7 days pooled": lambda world, pool, cells: over_spans(world, pool, cells, (7,)),
        "the day, and 3 pooled (ours)": lambda world, pool, cells: over_spans(
            world, pool, cells, (1, 3)
        ),
        "the day, 3 and 7 pooled": lambda world, pool, cells: over_spans(
            world, pool, cells, (1, 3, 7)
        ),
        "sequential, one alarm in 1,000 days": lambda world, pool, cells: sequential(
            world, pool, cells, 1_000
        ),
    }
    shifts = practical_shifts()
    quiet_rates: dict[tuple[str, int], list[float]] = {}
    found = {(rule, name): Found({}) for rule in chosen for name in shifts}
    for number, make in enumerate(worlds(repeats, options.seed, options.data)):
        world = begun(make, number, repeats)
        rng = np.random.default_rng([options.seed, number])
        customers = world.customers(POOL_ROWS, options.seed + 10_000 + number)
        quiet = world.pool(customers)
        for size in SIZES[:3]:
            cells = draw(quiet, options.days, size, rng)
            for rule, judge in chosen.items():
                quiet_rates.setdefault((rule, size), []).append(
                    float(judge(world, quiet, cells).mean()) * QUARTER
                )
        for name, shift in shifts.items():
            moved = world.pool(shift(customers.iloc[-20_000:], rng))
            for _ in range(200 // repeats):
                cells = np.concatenate(
                    [draw(quiet, 14, ROWS_A_DAY, rng), draw(moved, 6, ROWS_A_DAY, rng)]
                )
                for rule, judge in chosen.items():
                    found[rule, name].add({"": judge(world, quiet, cells)}, 14)
    lines = [
        f"False alarms: {repeats} repeats of {options.days} days, days with an alarm per "
        f"quarter. Found within 1, 2, 3 and 6 days, in %: {ROWS_A_DAY} a day, "
        f"{200 // repeats * repeats} repeats in {repeats} worlds.",
        "",
        "| rule | "
        + " | ".join(f"false, {size:,} a day" for size in SIZES[:3])
        + " | "
        + " | ".join(shifts)
        + " |",
        "|---|" + "---|" * (3 + len(shifts)),
    ]
    for rule in chosen:
        rates = " | ".join(f"{np.mean(quiet_rates[rule, size]):.2f}" for size in SIZES[:3])
        ones = [found[rule, name] for name in shifts]
        shares = [
            " / ".join(f"{one.within('', days):.0%}" for days in (1, 2, 3, 6)).replace("%", "")
            for one in ones
        ]
        lines.append(f"| {rule} | {rates} | " + " | ".join(shares) + " |")
    return lines


def over_spans(world: World, pool: Pool, cells: IntArray, spans: tuple[int, ...]) -> BoolArray:
    """An alarm over any of some spans of days, alpha shared among them."""
    shared = LIMITS.model_copy(update={"alpha": LIMITS.alpha / len(spans)})
    found = np.zeros(len(cells), dtype=bool)
    for span in spans:
        actual, _ = columns_of(pooled(cells, span), pool.layout)
        found |= stability_verdicts(world.expected, actual, shared).drifted.any(axis=-1)
    return found


def k_of_n(world: World, pool: Pool, cells: IntArray, k: int, n: int, alpha: float) -> BoolArray:
    """A column that is an alarm by itself on k of the last n days."""
    actual, _ = columns_of(cells, pool.layout)
    drifted = stability_verdicts(
        world.expected, actual, LIMITS.model_copy(update={"alpha": alpha})
    ).drifted
    return np.asarray((pooled(drifted.astype(np.int64), n) >= k).any(axis=-1))


def sequential(
    world: World,
    pool: Pool,
    cells: IntArray,
    days: int,
    lags: int = 14,
    concentration: float = 50.0,
) -> BoolArray:
    """An e-detector (Shin, Ramdas and Rinaldo): for each column the sum, over the days on which a
    shift may have begun, of the Bayes factor of the counts since then: a population drawn around
    the reference (Dirichlet of the given concentration) against the reference's own, with the
    reference's sampling error (Dirichlet of its counts). An alarm when the score's sum, or the mean
    over the inputs, reaches so many days, and the floor is passed since the likeliest beginning.
    """
    total = np.concatenate([np.zeros_like(cells[:1]), np.cumsum(cells, axis=0)])
    now = np.arange(1, len(cells) + 1)
    evidence = np.full((len(cells), len(world.expected)), -np.inf)
    best, over_floor = evidence.copy(), np.zeros(evidence.shape, dtype=bool)
    for lag in range(1, lags + 1):
        window, _ = columns_of(total[now] - total[np.maximum(now - lag, 0)], pool.layout)
        factors, over = [], []
        for want, have in zip(world.expected, window, strict=True):
            share = (want + 0.5) / (want + 0.5).sum()
            factors.append(_dirichlet(have, concentration * share) - _dirichlet(have, want + 0.5))
            one = divergence(want, have)
            over.append(one.value - one.by_chance > LIMITS.floor)
        factor = np.where((now >= lag)[:, None], np.stack(factors, axis=-1), -np.inf)
        evidence = np.logaddexp(evidence, factor)
        over_floor = np.where(factor > best, np.stack(over, axis=-1), over_floor)
        best = np.maximum(best, factor)
    lines = np.log(days) + np.log([1, *[len(world.expected) - 1] * (len(world.expected) - 1)])
    return np.asarray(((evidence >= lines) & over_floor).any(axis=-1))


def _dirichlet(counts: IntArray, alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the probability of counts (... x bins) under a Dirichlet prior, up to what does not
    depend on it.
    """
    total, rows = alpha.sum(), counts.sum(axis=-1)
    each = (gammaln(counts + alpha) - gammaln(alpha)).sum(axis=-1)
    return np.asarray(each - gammaln(rows + total) + gammaln(total))


PARTS = {"practical": practical, "stationary": stationary, "rules": rules, "scenarios": scenarios}

if __name__ == "__main__":
    main()
