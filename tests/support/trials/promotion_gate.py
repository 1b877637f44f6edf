"""How often the promotion gate is wrong: false promotions of models that are no better, and power
against true gains in AUC.

Real part: the recipe is fitted to simulated customers again and again, with another seed, on a
    bootstrap of the same rows, and on
other customers. Each trial takes two of these fits as champion and challenger and draws the
evidence anew from a large pool of customers that no fit has seen. Stand-in part: a binormal pair of
scores whose AUC, likeness and spread are those measured on the real fits; its true gain can be set.
Both go through every test that the gate makes of two sides' answers.

The figures go to `docs/promotion-gate.json`, and from there into the marked block of
`docs/promotion-gate.md` and two pictures.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.governance.gate_tests import Comparison, compare
from creditrisk_assets.modelling.datasets import history_set, training_rows, with_features
from creditrisk_assets.modelling.fairness import Groups, jeffreys_interval, protected_groups
from creditrisk_assets.modelling.metrics import auc_gain
from creditrisk_assets.modelling.training import TrainingRows, fit, predict
from creditrisk_assets.monitoring.population_stability import population_stability
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Scores
from creditrisk_assets.simulation.card_customers import simulate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DOCS = Path(__file__).parents[3] / "docs"
SEED = 4
HISTORY_ROWS = 20_000
POOL_ROWS = 60_000
BADS = (50, 100, 400, 1_700)
GAINS = (-0.005, 0.0, 0.0025, 0.005, 0.01, 0.02, 0.03)
BEGIN, END = (
    "<!-- results: written by python -m benchmarks.governance.promotion_gate -->",
    "<!-- end of results -->",
)
COLORS = ("#8a8f98", "#d1622b", "#2f7d57", "#2457a4")


@dataclass(frozen=True)
class Pool:
    """Customers that no fit has seen: outcomes (n) and the group of each by protected field."""

    target: IntArray
    groups: Groups

    def drawn(self, bads: int, rng: np.random.Generator) -> IntArray:
        """Rows of an evidence with so many bads, and goods at the pool's own rate."""
        goods = round(bads * float((self.target == 0).sum() / self.target.sum()))
        parts = [
            rng.choice(np.flatnonzero(self.target == outcome), size, False)
            for outcome, size in ((1, bads), (0, goods))
        ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class StandIn:
    """A binormal pair: within goods and within bads both sides' scores are normal with variance 1.

    Attributes:
        bad_rate: share of bads.
        auc: true AUC of the champion.
        correlation: of the two sides' scores within a class.
        spread: standard deviation of the true gain between trials.
    """

    bad_rate: float
    auc: float
    correlation: float
    spread: float

    def drawn(self, bads: int, gain: float, rng: np.random.Generator) -> Comparison:
        """One evidence with so many bads. Each side's PD is the true one given its score, and
        declines above the bad rate.
        """
        target = np.repeat([1, 0], [bads, round(bads * (1 - self.bad_rate) / self.bad_rate)])
        common, own = rng.normal(size=len(target)), rng.normal(size=len(target))
        other = self.correlation * common + np.sqrt(1 - self.correlation**2) * own
        gain += float(rng.normal(0, self.spread)) if self.spread else 0.0
        return Comparison(
            target,
            self._side(target, other, self.auc + gain),
            self._side(target, common, self.auc),
            {},
        )

    def _side(self, target: IntArray, noise: FloatArray, auc: float) -> Scores:
        distance = float(np.sqrt(2) * stats.norm.ppf(auc))
        log_odds = (
            distance * (noise + distance * target)
            - distance**2 / 2
            + np.log(self.bad_rate / (1 - self.bad_rate))
        )
        return answers(1 / (1 + np.exp(-log_odds)), self.bad_rate)


@dataclass(frozen=True)
class Cell:
    """So many trials of one kind: how many promoted, how many passed each test."""

    kind: str
    bads: int
    gain: float
    trials: int
    promoted: int
    passed: dict[str, int]


def real_sides(fits: int, told: Callable[[str], None]) -> tuple[Pool, dict[str, Scores]]:
    """Fits of the recipe and their answers on the pool, each named by its kind and number."""
    customers = with_features(simulate(POOL_ROWS, SEED, 10_000_000), PORTFOLIO)
    evidence = training_rows(customers, PORTFOLIO, 1)
    numbers = {name: customers[name].to_numpy(dtype=np.float32) for name in PORTFOLIO.protected}
    history = training_history(SEED + 1)
    rng = np.random.default_rng(SEED)
    sides = {}

    def add(name: str, rows: TrainingRows, seed: int) -> None:
        fitted = fit(PORTFOLIO, rows, seed=seed)
        sides[name] = answers(predict(fitted, evidence.features), fitted.cut_off)
        told(f"fitted: {name}")

    for number in range(fits):
        add(f"seed {number}", history, number)
        add(
            f"bootstrap {number}",
            chosen_rows(history, rng.integers(0, len(history.target), len(history.target))),
            number,
        )
    for number in range(max(2, fits // 2)):
        add(f"other customers {number}", training_history(SEED + 2 + number), number)
    return Pool(evidence.target, protected_groups(PORTFOLIO, numbers)), sides


def training_history(seed: int) -> TrainingRows:
    """Simulated history without its held-out customers."""
    return history_set(with_features(simulate(HISTORY_ROWS, seed), PORTFOLIO), PORTFOLIO).fit


def chosen_rows(rows: TrainingRows, places: IntArray) -> TrainingRows:
    """Some of the rows, by place, each as often as it is named."""
    return TrainingRows(
        rows.raw[places], rows.features[places], rows.target[places], rows.weight[places]
    )


def answers(probability: FloatArray, cut_off: float) -> Scores:
    """PDs as a bundle would give them."""
    return Scores(
        probability,
        -np.log(probability / (1 - probability)),
        (probability >= cut_off).astype(np.int8),
    )


def pairs_of(kind: str, sides: dict[str, Scores]) -> Iterator[tuple[str, str]]:
    """Champion and challenger: any two fits of a kind; for bootstraps the champion is a fit of the
    rows themselves.
    """
    champions = [name for name in sides if name.startswith("seed" if kind == "bootstrap" else kind)]
    challengers = [name for name in sides if name.startswith(kind)]
    return ((old, new) for old in champions for new in challengers if old != new)


def measured_pairs(
    pool: Pool, sides: dict[str, Scores], pairs: list[tuple[str, str]]
) -> dict[str, float]:
    """Measures of pairs of fits on the whole pool.

    Returns:
        pairs; mean and standard deviation of the gain in AUC; standard error of the gain on an
        evidence of 100 bads (it falls with the root of the bads); standard deviation of the
        difference in log-odds; largest PSI and largest swing of the approval rate.
    """
    gains = [
        auc_gain(pool.target, sides[new].default_probability, sides[old].default_probability)
        for old, new in pairs
    ]
    gain, error = np.array(gains).T
    log_odds = [float(np.std(sides[new].score - sides[old].score)) for old, new in pairs]
    psi = [
        population_stability(
            "PD", sides[old].default_probability, sides[new].default_probability, 0.5, 0.0
        ).value
        for old, new in pairs
    ]
    swing = [
        abs(float((sides[new].prediction == 0).mean() - (sides[old].prediction == 0).mean()))
        for old, new in pairs
    ]
    return {
        "pairs": len(pairs),
        "mean_gain": float(gain.mean()),
        "sd_of_gain": float(gain.std()),
        "standard_error_at_100_bads": float(np.sqrt((error**2).mean() * pool.target.sum() / 100)),
        "sd_of_log_odds_difference": float(np.mean(log_odds)),
        "largest_psi": max(psi),
        "largest_swing": max(swing),
    }


def stand_in_of(pool: Pool, sides: dict[str, Scores], measured: dict[str, float]) -> StandIn:
    """A binormal pair with the fits' AUC and spread, correlated so that the standard error of the
    gain is the one measured.
    """
    aucs = [
        auc_of(pool.target, scores) for name, scores in sides.items() if name.startswith("seed")
    ]
    rate, auc = float(pool.target.mean()), float(np.mean(aucs))

    def error_at(correlation: float) -> float:
        on = StandIn(rate, auc, correlation, 0.0).drawn(40_000, 0.0, np.random.default_rng(SEED))
        error = auc_gain(
            on.target, on.challenger.default_probability, on.champion.default_probability
        )[1]
        return error * float(np.sqrt(40_000 / 100))

    low, high = 0.0, 1.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if error_at(middle) > measured["standard_error_at_100_bads"]
            else (low, middle)
        )
    return StandIn(rate, auc, (low + high) / 2, measured["sd_of_gain"])


def auc_of(target: IntArray, scores: Scores) -> float:
    """AUC of one side."""
    ranks = stats.rankdata(scores.default_probability)
    bads = int(target.sum())
    return float((ranks[target == 1].sum() - bads * (bads + 1) / 2) / (bads * (len(target) - bads)))


def real_cell(
    kind: str,
    pairs: list[tuple[str, str]],
    pool: Pool,
    sides: dict[str, Scores],
    bads: int,
    trials: int,
    limits: GateLimits,
) -> Cell:
    """Trials of fits on new evidence."""
    rng = np.random.default_rng([SEED, bads, len(kind)])

    def trial() -> Comparison:
        old, new = pairs[rng.integers(len(pairs))]
        rows = pool.drawn(bads, rng)
        groups = {name: grouping.part(rows) for name, grouping in pool.groups.items()}
        return Comparison(pool.target[rows], part(sides[new], rows), part(sides[old], rows), groups)

    return counted(kind, bads, 0.0, trials, trial, limits)


def part(scores: Scores, rows: IntArray) -> Scores:
    """The answers for some rows."""
    return Scores(scores.default_probability[rows], scores.score[rows], scores.prediction[rows])


def stand_in_cell(
    kind: str, stand_in: StandIn, bads: int, gain: float, trials: int, limits: GateLimits
) -> Cell:
    """Trials of the stand-in; the same arguments give the same counts."""
    rng = np.random.default_rng([SEED, bads, round(1e6 * (1 + gain))])
    return counted(kind, bads, gain, trials, lambda: stand_in.drawn(bads, gain, rng), limits)


def counted(
    kind: str,
    bads: int,
    gain: float,
    trials: int,
    trial: Callable[[], Comparison],
    limits: GateLimits,
) -> Cell:
    """Put each trial before the gate."""
    promoted, passed = 0, dict[str, int]()
    for _ in range(trials):
        tests = compare(trial(), limits)
        promoted += all(test.passed for test in tests)
        for test in tests:
            passed[test.name] = passed.get(test.name, 0) + test.passed
    return Cell(kind, bads, gain, trials, promoted, passed)


def shown(cell: Cell) -> str:
    """One line of progress."""
    return (
        f"{cell.kind}, gain {cell.gain:+.4f}, {cell.bads} bads: {cell.promoted} of {cell.trials} "
        "promoted"
    )


def block(results: dict[str, Any]) -> str:
    """The figures as Markdown; every number in it comes from the results."""
    cells = [Cell(**cell) for cell in results["cells"]]
    fits, trials = results["fits"], cells[0].trials
    nulls = [kind for kind in dict.fromkeys(cell.kind for cell in cells) if kind != "gain"]
    lines = [
        f"Seed {results['seed']}, {trials:,} trials a cell ({trials // 2:,} for power), intervals "
        f"of 95 % (Jeffreys). {fits['seed']} fits by seed and {fits['bootstrap']} on bootstraps "
        f"of one simulated history of {results['history_rows']:,} customers, "
        f"{fits['other customers']} on other histories of that size; evidence drawn from "
        f"{results['pool_rows']:,} simulated customers with {results['pool_bads']:,} bads. Fits "
        "are used in many trials, which the intervals do not count. Limits: "
        f"{', '.join(f'{name} {value:g}' for name, value in results['limits'].items())}.",
        "",
        "### What two fits of the recipe differ by",
        "",
        "| challenger against champion | pairs | AUC gain, mean | AUC gain, SD | standard error "
        "of the gain at 100 bads | SD of the difference in log-odds | PSI of the PDs, largest | "
        "swing of the approval rate, largest |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {one['pairs']} | {one['mean_gain']:+.5f} | {one['sd_of_gain']:.5f} | "
            f"{one['standard_error_at_100_bads']:.4f} | {one['sd_of_log_odds_difference']:.3f} | "
            f"{one['largest_psi']:.3f} | {one['largest_swing']:.3f} |"
            for kind, one in results["measured"].items()
        ),
        "",
        "Stand-ins (bad rate, AUC, correlation, spread): "
        + "; ".join(
            f"{kind}: {one['bad_rate']:.4f}, {one['auc']:.4f}, {one['correlation']:.4f}, "
            f"{one['spread']:.5f}"
            for kind, one in results["stand_ins"].items()
        )
        + ".",
        "",
        "### Promotions of a challenger that is no better",
        "",
        "In brackets the share that passes `ranks_better`, the test that carries the error, "
        "without the others.",
        "",
        _header("challenger against champion"),
        *(
            _row(kind, [cell for cell in cells if cell.kind == kind], "ranks_better")
            for kind in nulls
        ),
        "",
        "### Promotions by true gain in AUC",
        "",
        "The stand-in of fits on other customers, the least alike pair. In brackets the share "
        "that passes `ranks_no_worse`.",
        "",
        _header("true gain"),
        *(
            _row(
                f"{gain:+.4f}",
                [cell for cell in cells if cell.kind == "gain" and cell.gain == gain],
                "ranks_no_worse",
            )
            for gain in GAINS
        ),
    ]
    return "\n".join(lines)


def _header(first: str) -> str:
    return (
        f"| {first} | "
        + " | ".join(f"{bads:,} bads" for bads in BADS)
        + " |\n|---|"
        + "---|" * len(BADS)
    )


def _row(name: str, cells: list[Cell], test: str) -> str:
    texts = []
    for cell in cells:
        low, high = jeffreys_interval(cell.promoted, cell.trials)
        share = cell.promoted / cell.trials
        texts.append(
            f"{share:.1%}, {low:.1%} to {high:.1%} ({cell.passed[test] / cell.trials:.1%})"
        )
    return f"| {name} | " + " | ".join(texts) + " |"


def with_block(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """The page with the block between two marks replaced.

    Raises:
        ValueError: if the page has no such block.
    """
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no block; valid: once {begin!r} and once {end!r}")
    return f"{page[: page.index(begin)]}{begin}\n\n{text}\n\n{page[page.index(end) :]}"


def draw_power(cells: list[Cell], path: Path) -> None:
    """Promoted share by true gain, one line for each size of the evidence."""
    figure, axes = _axes("true gain in AUC", "promoted")
    for bads, color in zip(BADS, COLORS, strict=True):
        chosen = [cell for cell in cells if cell.kind == "gain" and cell.bads == bads]
        _points(axes, [cell.gain for cell in chosen], chosen, color, f"{bads:,} bads", "-")
    axes.axhline(0.05, color="#8a8f98", linewidth=0.8, linestyle="--")
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_false_promotions(cells: list[Cell], path: Path) -> None:
    """Promoted share of challengers that are no better, by the size of the evidence."""
    figure, axes = _axes("bads in the evidence", "promoted")
    kinds = [kind for kind in dict.fromkeys(cell.kind for cell in cells) if kind != "gain"]
    for kind in kinds:
        chosen = [cell for cell in cells if cell.kind == kind]
        color = COLORS[
            ["bootstrap", "other customers", "seed"].index(kind.removeprefix("stand-in: ")) + 1
        ]
        _points(
            axes,
            [float(cell.bads) for cell in chosen],
            chosen,
            color,
            kind,
            ":" if kind.startswith("stand-in") else "-",
        )
    axes.axhline(0.05, color="#8a8f98", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_xticks(BADS, [f"{bads:,}" for bads in BADS])
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.legend(fontsize=8)
    _save(figure, path)


def _points(
    axes: Any, places: list[float], cells: list[Cell], color: str, label: str, style: str
) -> None:
    share = np.array([cell.promoted / cell.trials for cell in cells])
    low, high = np.array([jeffreys_interval(cell.promoted, cell.trials) for cell in cells]).T
    axes.errorbar(
        places,
        share,
        [share - low, high - share],
        color=color,
        label=label,
        linestyle=style,
        marker="o",
        markersize=3,
    )


def _axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": path.name}):  # the same figures give the same file
        figure.savefig(path, format="svg", metadata={"Date": None})
