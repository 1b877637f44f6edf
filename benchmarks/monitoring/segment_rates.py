"""False alarms and power of the checks by segment, beside the checks without segments.

    python -m benchmarks.monitoring.segment_rates stationary   # years in which nothing happens
    python -m benchmarks.monitoring.segment_rates fields       # a field shifts in one segment
    python -m benchmarks.monitoring.segment_rates bad-rate     # the bad rate rises in one segment
    python -m benchmarks.monitoring.segment_rates all

Each repeat is a world of its own: a history of 20,000 simulated customers, three quarters of which
train a champion as in production, and days drawn from customers that it has not seen. There are 50
segments: those of the card portfolio, more by its fields, and a channel that depends on nothing,
in which the shifts are planted. The rule is that of the product, `monitoring.segment_rule`; that it
says the same as `monitoring.segment_days` for single days is asserted on some days of each run.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.monitoring.drift_worlds import World, pooled, worlds
from creditrisk_assets.modelling.fairness import jeffreys_interval
from creditrisk_assets.modelling.metrics import auc_with_error
from creditrisk_assets.modelling.segment_reference import SMALLEST_CLASS
from creditrisk_assets.monitoring.drift_rule import stability_verdicts
from creditrisk_assets.monitoring.performance import level_tests as whole_level
from creditrisk_assets.monitoring.performance import ranking_tests as whole_ranking
from creditrisk_assets.monitoring.performance import spans_of
from creditrisk_assets.monitoring.segment_days import (
    SHORT_OUTCOME_DAYS,
    Judged,
    References,
    outcome_sums,
    outcomes_of,
    stability_of,
)
from creditrisk_assets.monitoring.segment_rule import (
    OutcomeSums,
    Tests,
    approval_tests,
    level_tests,
    ranking_tests,
    stability_tests,
    stacked,
)
from creditrisk_assets.policy import Policy
from creditrisk_assets.portfolio.contract import Field
from creditrisk_assets.portfolio.segmentation import DEFAULT_PROBABILITY, Segmentation
from creditrisk_assets.portfolio.uci_card import PORTFOLIO, SEGMENTS
from creditrisk_assets.scoring.segment_profile import (
    MOST_BINS,
    SegmentPlacer,
    bin_places,
    bins_by_segment,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SEED = 500
SIZES = (500, 5_000)
POOL_ROWS = 100_000
SHIFTED_ROWS = 4_000
QUARTER = 365.25 / 4
QUIET = 14
"""Days before a planted shift: as many as the longest span of the outcomes."""

FOUND_WITHIN = 3
CHANNELS = (0.05, 0.20, 0.10, 0.15, 0.20, 0.30)
"""Shares of the channel's segments; shifts are planted in the first two."""

MORE = (
    Segmentation("bill_band", "bill", "bill_amt1", (5_000, 50_000, 100_000)),
    Segmentation("paid_band", "payment", "pay_amt1", (1, 2_000, 5_000)),
    Segmentation("marriage", "marital status", "marriage"),
    Segmentation("sex", "sex", "sex"),
)
"""Segments by fields beside the portfolio's."""

POLICY = Policy()
CHECKS = ("stability", "approval", "outcomes")
COLUMNS = ["score", *PORTFOLIO.field_names]


def main() -> None:
    """Run a part and print its tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--repeats", type=int, help="worlds; by default 10")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for part in PARTS if options.part == "all" else [options.part]:
        started = time.monotonic()
        for line in PARTS[part](options):
            print(line, flush=True)
        print(
            f"\n{part}: {time.monotonic() - started:.0f} s, seed {options.seed}, simulated "
            "customers.\n",
            flush=True,
        )


@dataclass(frozen=True)
class Customers:
    """Customers in bins and segments.

    Attributes:
        bins: n x columns, a cell of the bins of all columns each.
        segments: n x segmentations, the channel last.
        target: n, 1 = bad.
        probability: n, PD.
        approved: n.
    """

    bins: NDArray[np.int32]
    segments: NDArray[np.int32]
    target: IntArray
    probability: FloatArray
    approved: BoolArray

    def part(self, rows: IntArray) -> "Customers":
        """Some of them."""
        return Customers(*(getattr(self, field.name)[rows] for field in fields(Customers)))


class SegmentWorld:
    """A champion with the reference of 50 segments.

    Args:
        world: the champion and its profile.
        rng: deals the channels.
    """

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.placer = SegmentPlacer((*SEGMENTS, *MORE), PORTFOLIO.fields)
        self.by_fields = len(self.placer.labels)
        self.number = self.by_fields + len(CHANNELS)
        learned = world.reference
        raw = learned[PORTFOLIO.field_names].to_numpy(dtype=np.float32)
        scores = world.bundle.score(raw)
        segments = self.segments_of(raw, scores.default_probability)
        values = [scores.score, *raw.T]
        bins = bins_by_segment(
            world.profile.columns, values, [*segments.T.astype(np.int64)], self.number
        )
        # A sample of the training rows, as the bundle keeps it: production counts all of them.
        sizes = bins[:, 0].sum(axis=-1)
        used = sizes > 0
        self.segment_count = int(used.sum())
        judged = self.customers_of(world.held_out)
        auc, error = np.full(self.number, np.nan), np.full(self.number, np.nan)
        for place in range(self.number):
            rows = (judged.segments == place).any(axis=1)
            target = judged.target[rows]
            if min(target.sum(), len(target) - target.sum()) >= SMALLEST_CLASS:
                auc[place], error[place] = auc_with_error(target, judged.probability[rows])
        cut_off = world.bundle.manifest.cut_off
        approved = [
            (scores.default_probability[(segments == place).any(axis=1)] < cut_off).mean()
            if used[place]
            else np.nan
            for place in range(self.number)
        ]
        grades = [one.is_by_score for one, _ in self.placer.labels] + [False] * len(CHANNELS)
        self.references = References(
            bins.astype(np.float64),
            sizes.astype(np.float64),
            np.asarray(sizes / len(learned), dtype=np.float64),
            auc,
            error,
            np.array([cut_off]),
            np.where(grades, np.nan, approved)[:, None],
            (),
        )
        self.validation = world.bundle.manifest.metrics

    def segments_of(self, raw: NDArray[np.float32], probability: FloatArray) -> NDArray[np.int32]:
        """Segments of customers; each gets a channel by chance."""
        columns = dict(zip(PORTFOLIO.field_names, raw.T, strict=True))
        places = self.placer.of_columns({**columns, DEFAULT_PROBABILITY: probability})
        channel = self.rng.choice(len(CHANNELS), len(raw), p=CHANNELS) + self.by_fields
        return np.stack([*places, channel], axis=1).astype(np.int32)

    def customers_of(self, frame: pd.DataFrame, channel: int | None = None) -> Customers:
        """Customers in bins and segments, all of one channel if it is stated."""
        raw = self.world.bundle.raw(frame)
        scores = self.world.bundle.score(raw)
        segments = self.segments_of(raw, scores.default_probability)
        if channel is not None:
            segments[:, -1] = self.by_fields + channel
        columns = self.world.profile.columns
        bins = np.stack(
            [
                place * MOST_BINS + bin_places(column, values, exact=place == 0)
                for place, (column, values) in enumerate(
                    zip(columns, [scores.score, *raw.T], strict=True)
                )
            ],
            axis=1,
        )
        return Customers(
            bins.astype(np.int32),
            segments,
            frame[PORTFOLIO.target].to_numpy(dtype=np.int64),
            scores.default_probability,
            scores.prediction == 0,
        )


@dataclass(frozen=True)
class Days:
    """Counts and outcomes of days (first axis) by segment."""

    bins: IntArray
    rows: IntArray
    approved: IntArray
    outcomes: OutcomeSums

    @classmethod
    def of(cls, world: SegmentWorld, days: Sequence[Customers], outcomes: bool = True) -> "Days":
        """Count days of customers."""
        width = len(COLUMNS) * MOST_BINS
        bins, approved, sums = [], [], []
        for day in days:
            one = np.zeros(world.number * width, dtype=np.int64)
            granted = np.zeros(world.number)
            for segment in day.segments.T:
                cells = segment[:, None] * width + day.bins
                one += np.bincount(cells.ravel(), minlength=len(one))
                granted += np.bincount(segment, day.approved, minlength=world.number)
            bins.append(one.reshape(world.number, len(COLUMNS), MOST_BINS))
            approved.append(granted.astype(np.int64))
            if outcomes:
                segments = [*day.segments.T.astype(np.int64)]
                sums.append(outcome_sums(day.target, day.probability, segments, world.number))
        counted = np.stack(bins)
        return cls(
            counted,
            counted[:, :, 0].sum(axis=-1),
            np.stack(approved),
            OutcomeSums(
                *(
                    np.stack([getattr(one, field.name) for one in sums])
                    for field in fields(OutcomeSums)
                )
            )
            if outcomes
            else OutcomeSums(*(np.zeros((0, world.number)) for _ in fields(OutcomeSums))),
        )


def verdicts_of(world: SegmentWorld, days: Days) -> dict[str, Judged]:
    """The product's tests by segment of each day; days are the first axis of each array, spans the
    second.
    """
    references, alpha = world.references, POLICY.segments.alpha
    spans = (1, POLICY.drift.days)
    before = references.pd_shares[:, 0]
    stability = stacked(
        [
            stability_tests(
                references.expected, pooled(days.bins, span), POLICY.segments, POLICY.drift
            )
            for span in spans
        ],
        1,
    )
    approval = stacked(
        [
            approval_tests(
                pooled(days.approved, span),
                pooled(days.rows, span),
                before,
                references.rows,
                POLICY.segments,
            )
            for span in spans
        ],
        1,
    )
    found = {
        "stability": Judged.of(spans, stability, alpha, 3),
        "approval": Judged.of(spans, approval, alpha, 2),
    }
    if len(days.outcomes.rows):
        found["outcomes"] = judged_outcomes(world, days.outcomes)
    return found


OUTCOME_SPANS = (SHORT_OUTCOME_DAYS, POLICY.performance.days)


def judged_outcomes(world: SegmentWorld, sums: OutcomeSums) -> Judged:
    """The product's tests of outcomes by segment of each day."""
    return Judged.of(OUTCOME_SPANS, outcome_tests(world, sums), POLICY.segments.outcome_alpha, 3)


def outcome_tests(world: SegmentWorld, sums: OutcomeSums) -> Tests:
    """Level and ranking of each span of days."""
    references, floor = world.references, POLICY.performance.floor
    tests = []
    for span in OUTCOME_SPANS:
        together = OutcomeSums(
            *(
                np.asarray(pooled(getattr(sums, field.name), span), dtype=np.float64)
                for field in fields(OutcomeSums)
            )
        )
        tests.append(
            stacked(
                [
                    level_tests(together, floor, POLICY.segments),
                    ranking_tests(
                        together, references.roc_auc, references.roc_auc_standard_error, floor
                    ),
                ],
                1,
            )
        )
    return stacked(tests, 1)


def any_of(judged: Judged) -> BoolArray:
    """Whether each day has an alarm."""
    return np.asarray(judged.failed.reshape(len(judged.failed), -1).any(axis=1))


def whole_stability(world: SegmentWorld, days: Days) -> BoolArray:
    """The days on which the checks of score and fields fail without segments."""
    sizes = [len(column.counts) for column in world.world.profile.columns]
    every = days.bins[:, world.by_fields :].sum(axis=1)
    spans = (1, POLICY.drift.days)
    shared = POLICY.drift.model_copy(update={"alpha": POLICY.drift.alpha / len(spans)})
    found = np.zeros(len(every), dtype=bool)
    for span in spans:
        together = pooled(every, span)
        actual = [together[:, place, :size] for place, size in enumerate(sizes)]
        found |= stability_verdicts(world.world.expected, actual, shared).drifted.any(axis=-1)
    return found


def whole_outcomes(world: SegmentWorld, days: Sequence[Customers], first: int) -> BoolArray:
    """The days from `first` on which the checks of ranking and level fail without segments."""
    figures = []
    for day in days:
        auc, error = auc_with_error(day.target, day.probability)
        figures.append(
            {
                "rows": float(len(day.target)),
                "bads": float(day.target.sum()),
                "mean_pd": float(day.probability.mean()),
                "bad_rate": float(day.target.mean()),
                "pd_variance": float((day.probability * (1 - day.probability)).mean()),
                "roc_auc": auc,
                "roc_auc_standard_error": error,
            }
        )
    limits, found = POLICY.performance, []
    for last in range(first, len(days)):
        spans = spans_of(figures[max(0, last - limits.days + 1) : last + 1], limits.days)
        tests = [
            *whole_level(spans, limits.alpha, limits.floor).values(),
            *whole_ranking(spans, world.validation, limits.alpha, limits.floor).values(),
        ]
        found.append(not all(test.passed for test in tests))
    return np.array(found)


def made(number: int, options: argparse.Namespace, repeats: int) -> tuple[SegmentWorld, Customers]:
    """A world and its customers."""
    print(
        f"world {number + 1} of {repeats}, {time.process_time():.0f} s of processor",
        file=sys.stderr,
        flush=True,
    )
    world = worlds(repeats, options.seed, None)[number]()
    segmented = SegmentWorld(world, np.random.default_rng([options.seed, number, 1]))
    pool = world.customers(POOL_ROWS, options.seed + 10_000 + number)
    return segmented, segmented.customers_of(pool)


def alarms_of(failed: BoolArray) -> int:
    """Failed days after one that passed."""
    return int((failed[1:] & ~failed[:-1]).sum() + failed[0])


def stationary(options: argparse.Namespace) -> list[str]:
    """False alarms per quarter of a year, and the gaps that a sound fit leaves in segments."""
    repeats = options.repeats or 10
    rates: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    gaps: list[tuple[FloatArray, float]] = []
    segments = 0
    for number in range(repeats):
        world, pool = made(number, options, repeats)
        segments = max(segments, world.segment_count)
        gaps.append(level_gaps(world, pool))
        rng = np.random.default_rng([options.seed, number, 2])
        for size in SIZES:
            days = [pool.part(rng.integers(0, len(pool.target), size)) for _ in range(options.days)]
            counts = Days.of(world, days)
            judged = verdicts_of(world, counts)
            agrees(world, counts, judged, options.days // 2)
            found = {name: any_of(one) for name, one in judged.items()}
            found["all by segment"] = np.any([*found.values()], axis=0)
            found["stability, without segments"] = whole_stability(world, counts)
            found["outcomes, without segments"] = whole_outcomes(world, days, 0)
            found["all without segments"] = (
                found["stability, without segments"] | found["outcomes, without segments"]
            )
            found["all, with and without"] = found["all by segment"] | found["all without segments"]
            for name, failed in found.items():
                quarters = options.days / QUARTER
                rates[name, size].append((failed.sum() / quarters, alarms_of(failed) / quarters))
        so_far(stationary_lines(rates, gaps, segments, number + 1, options.days))
    return stationary_lines(rates, gaps, segments, repeats, options.days)


def stationary_lines(
    rates: Mapping[tuple[str, int], list[tuple[float, float]]],
    gaps: Sequence[tuple[FloatArray, float]],
    segments: int,
    repeats: int,
    days: int,
) -> list[str]:
    """The table of false alarms, and the gaps of the level."""
    spread = np.concatenate([own for own, _ in gaps])
    chance = float(np.mean([variance for _, variance in gaps]))
    lines = [
        f"{repeats} repeats of {days} days, {segments} segments with rows x "
        f"{len(COLUMNS) - 1} fields and the score. Days with a false alarm per quarter (worst "
        "repeat); alerts per quarter, which are such days after one without.",
        "",
        "| check | " + " | ".join(f"days, {size:,} rows a day | alerts" for size in SIZES) + " |",
        "|---|" + "---|" * (2 * len(SIZES)),
    ]
    for name in dict.fromkeys(name for name, _ in rates):
        cells = []
        for size in SIZES:
            days_failed, alerts = np.array(rates[name, size]).T
            cells += [f"{days_failed.mean():.2f} ({days_failed.max():.2f})", f"{alerts.mean():.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Gap between bad rate and mean PD of {len(spread)} segments with 2,000 or more of the "
        f"pool's customers: standard deviation {spread.std():.4f} beyond chance "
        f"{np.sqrt(max(spread.std() ** 2 - chance, 0)):.4f}, largest "
        f"{np.abs(spread).max():.3f}.",
    ]
    return lines


def level_gaps(world: SegmentWorld, pool: Customers) -> tuple[FloatArray, float]:
    """Bad rate minus mean PD of the larger segments, over the whole pool, and the mean of their
    variances by chance.
    """
    gaps, variances = [], []
    for place in range(world.number):
        rows = (pool.segments == place).any(axis=1)
        if rows.sum() >= 2_000:
            probability = pool.probability[rows]
            gaps.append(pool.target[rows].mean() - probability.mean())
            variances.append((probability * (1 - probability)).mean() / rows.sum())
    return np.array(gaps), float(np.mean(variances))


def so_far(lines: Sequence[str]) -> None:
    """The table of the worlds that are done, as progress."""
    print("\n".join(lines), file=sys.stderr, flush=True)


def agrees(world: SegmentWorld, days: Days, judged: Mapping[str, Judged], day: int) -> None:
    """Assert that the product's functions for one day give the same verdicts."""
    bins = [days.bins[day - back] for back in range(POLICY.drift.days)]
    assert np.array_equal(
        stability_of(bins, world.references, POLICY).failed, judged["stability"].failed[day]
    )
    sums = [
        OutcomeSums(
            *(getattr(days.outcomes, field.name)[day - back] for field in fields(OutcomeSums))
        )
        for back in range(POLICY.performance.days)
    ]
    assert np.array_equal(
        outcomes_of(sums, world.references, POLICY).failed, judged["outcomes"].failed[day]
    )


def shifted(frame: pd.DataFrame, field: Field, rng: np.random.Generator) -> pd.DataFrame:
    """Customers whose mean of a field is half a standard deviation higher, as far as its codes and
    range allow: numbers by that much, codes by one step for a share.
    """
    values = frame[field.name].to_numpy(dtype=np.float64)
    step = values.std() / 2
    if field.codes is None:
        moved = np.clip(values + round(step), field.minimum, field.maximum)
    else:
        codes = np.array(sorted(field.codes), dtype=np.float64)
        following = codes[np.minimum(np.searchsorted(codes, values) + 1, len(codes) - 1)]
        room = (following - values).mean()
        moved = np.where(rng.random(len(values)) < step / max(room, step), following, values)
    return frame.assign(**{field.name: moved.astype("int64")})


Found = dict[tuple[str, float, int, str], list[bool]]
"""Whether each repeat of a shift, by its name, share, rows a day and side, was found."""

SIDES = ("by segment", "without")
WORSE = "bad rate x 1.5"


def fields_shifted(options: argparse.Namespace) -> list[str]:
    """Shares of repeats in which a shift of a field in one channel is found within three days."""
    repeats = options.repeats or 10
    each = 4
    found: Found = defaultdict(list)
    named: dict[tuple[float, int], list[bool]] = defaultdict(list)
    for number in range(repeats):
        world, pool = made(number, options, repeats)
        rng = np.random.default_rng([options.seed, number, 3])
        customers = world.world.customers(SHIFTED_ROWS, options.seed + 30_000 + number)
        for place, share in enumerate(CHANNELS[:2]):
            others = np.flatnonzero(pool.segments[:, -1] != world.by_fields + place)
            for field in PORTFOLIO.fields:
                moved = world.customers_of(shifted(customers, field, rng), place)
                for size in SIZES * each:
                    quiet = [pool.part(rng.integers(0, len(pool.target), size)) for _ in range(2)]
                    days = [*quiet, *mixed(pool, others, moved, share, size, rng)]
                    counts = Days.of(world, days, outcomes=False)
                    judged = verdicts_of(world, counts)["stability"]
                    by_segment = bool(any_of(judged)[2:].any())
                    whole = bool(whole_stability(world, counts)[2:].any())
                    found[field.name, share, size, SIDES[0]].append(by_segment)
                    found[field.name, share, size, SIDES[1]].append(whole)
                    if by_segment:
                        own = judged.failed[2:, :, world.by_fields + place]
                        named[share, size].append(bool(own.any()))
        so_far(fields_lines(found, named, number + 1, each))
    return fields_lines(found, named, repeats, each)


def fields_lines(
    found: Found, named: Mapping[tuple[float, int], list[bool]], repeats: int, each: int
) -> list[str]:
    """The table of the fields."""
    names = PORTFOLIO.field_names
    shares = " | ".join(
        f"{100 * float(np.mean(named[cell])):.0f}" if named.get(cell) else "" for cell in CELLS
    )
    return [
        *head(f"{repeats} worlds, {each} repeats in each for each field."),
        line("one field by half a standard deviation, all fields", names, found),
        *(line(f"`{name}`", [name], found) for name in names),
        f"| the planted segment is named, if any is | {shares} |",
    ]


def bad_rate_raised(options: argparse.Namespace) -> list[str]:
    """Shares of repeats in which a bad rate that rose in one channel is found within three days."""
    repeats = options.repeats or 10
    each = 20
    found: Found = defaultdict(list)
    for number in range(repeats):
        world, pool = made(number, options, repeats)
        rng = np.random.default_rng([options.seed, number, 4])
        for place, share in enumerate(CHANNELS[:2]):
            own = pool.segments[:, -1] == world.by_fields + place
            others, members = np.flatnonzero(~own), pool.part(np.flatnonzero(own))
            rate = members.target.mean()
            for size in SIZES * each:
                turned = rng.random(len(members.target)) < 0.5 * rate / (1 - rate)
                worse = Customers(
                    members.bins,
                    members.segments,
                    np.maximum(members.target, turned.astype(np.int64)),
                    members.probability,
                    members.approved,
                )
                quiet = [pool.part(rng.integers(0, len(pool.target), size)) for _ in range(QUIET)]
                days = [*quiet, *mixed(pool, others, worse, share, size, rng)]
                alarms = any_of(judged_outcomes(world, Days.of(world, days).outcomes))
                found[WORSE, share, size, SIDES[0]].append(bool(alarms[QUIET:].any()))
                whole = bool(whole_outcomes(world, days, QUIET).any())
                found[WORSE, share, size, SIDES[1]].append(whole)
        so_far(bad_rate_lines(found, number + 1, each))
    return bad_rate_lines(found, repeats, each)


def bad_rate_lines(found: Found, repeats: int, each: int) -> list[str]:
    """The table of the bad rate."""
    low = [jeffreys_interval(sum(found[WORSE, *cell, SIDES[0]]), repeats * each) for cell in CELLS]
    intervals = " | ".join(f"{100 * one[0]:.0f} to {100 * one[1]:.0f}" for one in low)
    return [
        *head(f"{repeats} worlds, {each} repeats in each."),
        line(WORSE, [WORSE], found),
        f"| 95 % interval by segment | {intervals} |",
    ]


CELLS = [(share, size) for share in CHANNELS[:2] for size in SIZES]


def head(repeats: str) -> list[str]:
    """Sentence and head of a table of planted shifts."""
    columns = " | ".join(f"{share:.0%} of {size:,} rows a day" for share, size in CELLS)
    return [
        f"{repeats} Found within {FOUND_WITHIN} days, in %: by segment / without segments.",
        "",
        f"| shift in one segment | {columns} |",
        "|---|" + "---|" * len(CELLS),
    ]


def line(name: str, keys: Sequence[str], found: Found) -> str:
    """A line of such a table."""
    shown = []
    for share, size in CELLS:
        rates = [
            np.mean([one for key in keys for one in found[key, share, size, side]])
            for side in SIDES
        ]
        shown.append(" / ".join(f"{100 * rate:.0f}" for rate in rates))
    return f"| {name} | " + " | ".join(shown) + " |"


def mixed(
    pool: Customers,
    others: IntArray,
    moved: Customers,
    share: float,
    size: int,
    rng: np.random.Generator,
) -> list[Customers]:
    """Days of customers of whom a share come from the shifted ones."""
    days = []
    for _ in range(FOUND_WITHIN):
        members = rng.binomial(size, share)
        parts = (
            moved.part(rng.integers(0, len(moved.target), members)),
            pool.part(rng.choice(others, size - members)),
        )
        days.append(
            Customers(
                *(
                    np.concatenate([getattr(part, field.name) for part in parts])
                    for field in fields(Customers)
                )
            )
        )
    return days


PARTS = {"stationary": stationary, "fields": fields_shifted, "bad-rate": bad_rate_raised}

if __name__ == "__main__":
    main()
