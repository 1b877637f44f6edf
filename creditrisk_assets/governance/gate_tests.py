"""The tests of the promotion gate, as pure functions of both sides' answers on the same rows:
`COMPARISONS` for a fitted challenger, `RECALIBRATION_COMPARISONS` for the champion with a new
calibration. Their order and the verdict belong in `promotion_gate`.

Each returns its figure, limit and a sentence. `passed` is a comparison that NaN fails.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from creditrisk_assets.decisions.shadow import ShadowScores
from creditrisk_assets.governance.verdict import GateTest
from creditrisk_assets.modelling.calibration import least_update
from creditrisk_assets.modelling.fairness import Groups, fields_surely_below, lowest_ratios
from creditrisk_assets.modelling.metrics import auc_gain, row_log_loss
from creditrisk_assets.monitoring.population_stability import population_stability
from creditrisk_assets.number_format import format_with_limit
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.portfolio.contract import DecisionWords
from creditrisk_assets.scoring.bundle import Scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PSI_WORTH_A_LOOK = 0.25
"""The rule of thumb for a shift of a score: a warning here, while the limit fails the test."""


@dataclass(frozen=True)
class Comparison:
    """Both sides' answers on the same n rows, each at its own cut-off, with outcomes and groups of
    the rows. `rate` is the portfolio's name of the approval rate.
    """

    target: IntArray
    challenger: Scores
    champion: Scores
    groups: Groups
    rate: str = DecisionWords().rate

    @cached_property
    def auc_gain(self) -> tuple[float, float]:
        """The challenger's AUC minus the champion's, and DeLong's standard error of it."""
        return auc_gain(
            self.target, self.challenger.default_probability, self.champion.default_probability
        )

    def test(
        self,
        name: str,
        passed: bool,
        observed: float | None,
        limit: float,
        sentence: str,
        warning: bool = False,
    ) -> GateTest:
        """The result of a test on these rows."""
        return GateTest(
            name=name,
            passed=bool(passed),
            observed=None if observed is None else finite(observed),
            limit=limit,
            n=len(self.target),
            warning=warning,
            sentence=sentence,
        )


def compare(
    comparison: Comparison, limits: GateLimits, recalibration: bool = False
) -> list[GateTest]:
    """Run every test for a fitted challenger or a recalibration; a test that crashes fails."""
    results = []
    for name, test in (RECALIBRATION_COMPARISONS if recalibration else COMPARISONS).items():
        try:
            results.append(test(comparison, limits))
        except Exception as error:  # any error fails the test and is in the verdict
            results.append(crashed_test(name, error))
    return results


def ranks_no_worse(comparison: Comparison, limits: GateLimits) -> GateTest:
    """DeLong's paired test of non-inferiority, one-sided: excludes at `alpha` a loss in AUC as
    large as the margin.

    It separates a challenger that is as good but no better from one that may be worse.
    """
    gain, error = comparison.auc_gain
    lowest = gain - float(stats.norm.isf(limits.alpha)) * error
    shown = format_with_limit(lowest, -limits.inferiority_margin, "+.4f")
    return comparison.test(
        "ranks_no_worse",
        lowest > -limits.inferiority_margin,
        lowest,
        -limits.inferiority_margin,
        f"AUC gain {gain:+.4f}, with {1 - limits.alpha:.1%} confidence above {shown[0]}; it must "
        f"be above {shown[1]}",
    )


def ranks_better(comparison: Comparison, limits: GateLimits) -> GateTest:
    """DeLong's paired test of superiority, one-sided, and a gain above the minimum.

    On many rows a small gain is significant: the minimum decides if it is worth a change. On few
    rows chance gives large gains: there `alpha` decides.
    """
    gain, error = comparison.auc_gain
    by_chance = float(stats.norm.isf(limits.alpha)) * error
    limit = max(limits.minimum_gain, by_chance)
    p_value = float(stats.norm.sf(gain / error)) if error > 0 else 1.0
    shown = format_with_limit(gain, limit, "+.4f")
    return comparison.test(
        "ranks_better",
        gain > limit and p_value < limits.alpha,  # an error of zero proves nothing
        gain,
        limit,
        f"AUC gain {shown[0]}, p {p_value:.2g}; needed: above {shown[1]}, the larger of the "
        f"minimum {limits.minimum_gain:g} and of {by_chance:.4f}, which chance exceeds in "
        f"{limits.alpha:.1%}",
    )


def brier_is_no_worse(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Paired test that the Brier score is not worse than the champion's by more than the margin."""
    return _loss_is_no_worse("brier_is_no_worse", "Brier score", brier_losses, comparison, limits)


def log_loss_is_no_worse(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Paired test that the log loss is not worse than the champion's by more than the margin."""
    return _loss_is_no_worse("log_loss_is_no_worse", "log loss", row_log_loss, comparison, limits)


def _loss_is_no_worse(
    name: str,
    title: str,
    losses: Callable[[IntArray, FloatArray], FloatArray],
    comparison: Comparison,
    limits: GateLimits,
) -> GateTest:
    old = losses(comparison.target, comparison.champion.default_probability)
    differences = losses(comparison.target, comparison.challenger.default_probability) - old
    mean = float(differences.mean())
    highest = mean + float(stats.norm.isf(limits.alpha)) * float(
        differences.std(ddof=1)
    ) / math.sqrt(len(differences))
    margin = limits.loss_margin * float(old.mean())
    shown = format_with_limit(highest, margin, "+.5f")
    return comparison.test(
        name,
        highest <= margin,
        highest,
        margin,
        f"{title} {mean:+.5f} from the champion's {old.mean():.4f}, with {1 - limits.alpha:.1%} "
        f"confidence below {shown[0]}; it must be at most {shown[1]}",
    )


def brier_losses(target: IntArray, probability: FloatArray) -> FloatArray:
    """Squared error of each row."""
    return np.asarray((probability - target) ** 2)


def level_is_right(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Calibration in the large: the bad rate equals the challenger's mean PD.

    The allowed gap is the largest of the floor, the gap by chance (two-sided; the variance of the
    number of bads is the sum of PD (1 - PD)) and the champion's gap: a level that is wrong by less
    is an improvement.
    """
    old = comparison.champion.default_probability
    return _level("level_is_right", comparison, limits, float(old.mean()))


def level_holds(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Calibration in the large as in `level_is_right`, without the champion's gap: a recalibration
    must correct the level.
    """
    return _level("level_holds", comparison, limits, None)


def _level(
    name: str, comparison: Comparison, limits: GateLimits, champion_mean: float | None
) -> GateTest:
    new, bad_rate = comparison.challenger.default_probability, float(comparison.target.mean())
    gap = float(new.mean()) - bad_rate
    by_chance = float(
        stats.norm.isf(limits.alpha / 2) * np.sqrt((new * (1 - new)).sum()) / len(new)
    )
    limit = max(limits.level_floor, by_chance)
    bounds = f"the larger of the floor {limits.level_floor:g} and chance {by_chance:.4f}"
    if champion_mean is not None:
        champion_gap = abs(champion_mean - bad_rate)
        limit = max(limit, champion_gap)
        bounds = (
            f"the largest of the floor {limits.level_floor:g}, chance {by_chance:.4f} and the "
            f"champion's gap {champion_gap:.4f}"
        )
    shown = format_with_limit(abs(gap), limit, ".4f")
    return comparison.test(
        name,
        abs(gap) <= limit,
        abs(gap),
        limit,
        f"mean PD {new.mean():.4f} against a bad rate of {bad_rate:.4f}, gap "
        f"{_signed(gap, shown[0])}; allowed: {shown[1]}, {bounds}",
    )


def ranks_identically(comparison: Comparison, _limits: GateLimits) -> GateTest:
    """Every row has the same rank of PD on both sides, ties included, so the AUC is equal."""
    moved = _moved(
        comparison.challenger.default_probability, comparison.champion.default_probability
    )
    return comparison.test(
        "ranks_identically",
        moved == 0,
        moved,
        0,
        f"{moved:,} of {len(comparison.target):,} rows have another place in the order of PDs "
        "than with the champion; none may",
    )


def champion_is_miscalibrated(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Likelihood-ratio test (Cox 1958, Biometrika 45:562; 2 degrees of freedom) that rejects the
    champion's calibration at `alpha` against a new intercept and slope.
    """
    old, target = comparison.champion.default_probability, comparison.target
    update = least_update(np.log(old) - np.log1p(-old), target)
    return comparison.test(
        "champion_is_miscalibrated",
        update.change_p < limits.alpha,
        update.change_p,
        limits.alpha,
        f"the champion's mean PD is {old.mean():.4f} against a bad rate of {target.mean():.4f}; p "
        f"{update.change_p:.2g} if its PDs are right, which must be rejected, below "
        f"{limits.alpha:g}",
    )


def likelihood_is_greater(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Split likelihood-ratio test: the likelihood of the held-out outcomes under the challenger's
    PDs is more than 1 / `alpha` times that under the champion's.

    The challenger's line was fitted without the held-out rows. So if the champion's PDs are right
    (outcomes are independent given the PDs), the ratio is an e-value: its expectation is 1 for any
    line, and by Markov's inequality it exceeds 1 / `alpha` with a probability of at most `alpha` on
    any number of rows (universal inference: Wasserman, Ramdas & Balakrishnan 2020, PNAS 117:16880).
    This bounds the error only if the champion is right; if it is wrong, a line that is less wrong
    passes. `champion_is_miscalibrated` and `level_holds` cover that case.
    """
    new, old = (
        row_log_loss(comparison.target, side.default_probability)
        for side in (comparison.challenger, comparison.champion)
    )
    log_ratio, limit = float((old - new).sum()), -math.log(limits.alpha)
    shown = format_with_limit(log_ratio, limit, "+.2f")
    return comparison.test(
        "likelihood_is_greater",
        log_ratio > limit,
        log_ratio,
        limit,
        f"log-likelihood of the outcomes {-new.sum():.2f} against the champion's "
        f"{-old.sum():.2f}, log of the ratio {shown[0]}; it must be above {shown[1]}, a ratio of "
        f"{1 / limits.alpha:g}",
    )


def _moved(challenger: FloatArray, champion: FloatArray) -> int:
    """Rows with another rank; ranks of NaN are NaN and differ from any rank."""
    return int((stats.rankdata(challenger, "dense") != stats.rankdata(champion, "dense")).sum())


def _signed(value: float, size: str) -> str:
    """The size with the sign of the value."""
    return f"{'-' if value < 0 else '+'}{size}"


def judges_alike(comparison: Comparison, limits: GateLimits) -> GateTest:
    """PSI between both sides' PDs on the same rows; a challenger that differs on most customers
    needs a person's decision.
    """
    old, new = comparison.champion.default_probability, comparison.challenger.default_probability
    psi = population_stability("PD", old, new, limits.alpha, limits.psi_limit).value
    needs_look = psi > PSI_WORTH_A_LOOK
    shown = format_with_limit(psi, limits.psi_limit)
    sentence = f"PSI between the two sides' PDs {shown[0]}; it must be at most {shown[1]}"
    sentence += f", and above {PSI_WORTH_A_LOOK} is worth a look" if needs_look else ""
    return comparison.test(
        "judges_alike",
        psi <= limits.psi_limit,
        psi,
        limits.psi_limit,
        sentence,
        warning=needs_look,
    )


def approval_rate_holds(comparison: Comparison, limits: GateLimits) -> GateTest:
    """The approval rate, each side at its own cut-off, changes by at most the limit."""
    new, old = (
        float((side.prediction == 0).mean())
        for side in (comparison.challenger, comparison.champion)
    )
    shown = format_with_limit(abs(new - old), limits.swing_limit)
    return comparison.test(
        "approval_rate_holds",
        abs(new - old) <= limits.swing_limit,
        abs(new - old),
        limits.swing_limit,
        f"{comparison.rate} {new:.3f} against {old:.3f}, swing {_signed(new - old, shown[0])}; at "
        f"most {shown[1]} is allowed",
    )


def fairness_holds(comparison: Comparison, limits: GateLimits) -> GateTest:
    """Fairness monitoring: no protected field's smallest adverse-impact ratio falls below the floor
    with its whole 95 % interval if the champion's was above. A ratio below the floor alone is a
    warning.

    The test monitors a figure; passing it proves no compliance.
    """
    floor = limits.fairness_floor
    new, old = (
        lowest_ratios(side, comparison.groups)
        for side in (comparison.challenger, comparison.champion)
    )
    under = {name for name, ratio in new.items() if not ratio >= floor and old[name] >= floor}
    significant = (
        fields_surely_below(comparison.challenger, comparison.groups, floor) if under else set()
    )
    fallen = sorted(name for name in under if name in significant or math.isnan(new[name]))
    ratios = ", ".join(
        f"{name} {old[name]:.3f} to {ratio:.3f} ({ratio - old[name]:+.3f})"
        for name, ratio in new.items()
    )
    sentence = (
        f"smallest adverse-impact ratio, champion to challenger: {ratios}"
        if ratios
        else "no two groups are large enough to compare"
    )
    if fallen:
        sentence += f"; {', '.join(fallen)} must not fall below {floor:g} with the whole interval"
    under_line = [
        f"{name} {' < '.join(format_with_limit(ratio, floor))}"
        for name, ratio in new.items()
        if ratio < floor
    ]
    if under_line:
        sentence += f"; under the line of {floor:g}: {', '.join(under_line)}"
    below = bool(under_line)
    lowest = min(new.values(), default=None)
    return comparison.test("fairness_holds", not fallen, lowest, floor, sentence, warning=below)


def shadow_agrees(
    shadow: ShadowScores, limits: GateLimits, recalibration: bool = False
) -> GateTest:
    """On the API's decisions of the last days the challenger scores every record, and its PDs are
    like the champion's by the limit of `judges_alike`, or by what chance gives on few decisions;
    those of a recalibration differ on purpose, and are in the champion's order.

    Without such decisions it does not apply: the other tests have the evidence that decides.
    """
    sentence = (
        f"{shadow.rows:,} decisions of {len(shadow.days)} days up to {max(shadow.days)} were "
        f"scored by the challenger, too; it failed on {shadow.failed:,} of them, 0 are allowed"
    )
    if len(shadow.champion) == 0:
        return GateTest(
            name="shadow_agrees", passed=False, limit=0, n=shadow.rows, sentence=sentence
        )
    if recalibration:
        moved = _moved(shadow.challenger, shadow.champion)
        return GateTest(
            name="shadow_agrees",
            passed=shadow.failed == 0 and moved == 0,
            observed=moved,
            limit=0,
            n=shadow.rows,
            sentence=f"{sentence}; {moved:,} have another place in the order of PDs than the "
            "champion gives them, 0 are allowed",
        )
    psi = population_stability(
        "PD", shadow.champion, shadow.challenger, limits.alpha, limits.psi_limit
    )
    shown = format_with_limit(psi.value, psi.threshold)
    return GateTest(
        name="shadow_agrees",
        passed=shadow.failed == 0 and psi.value <= psi.threshold,
        observed=finite(psi.value),
        limit=psi.threshold,
        n=shadow.rows,
        warning=psi.value > PSI_WORTH_A_LOOK,
        sentence=f"{sentence}; PSI between the two sides' PDs {shown[0]}, at most {shown[1]} is "
        "allowed",
    )


NO_SHADOW = "the champion has made no decision by the API that is stored"
"""The reason why `shadow_agrees` does not apply."""

COMPARISONS: dict[str, Callable[[Comparison, GateLimits], GateTest]] = {
    test.__name__: test
    for test in (
        ranks_no_worse,
        ranks_better,
        brier_is_no_worse,
        log_loss_is_no_worse,
        level_is_right,
        judges_alike,
        approval_rate_holds,
        fairness_holds,
    )
}

RECALIBRATION_COMPARISONS: dict[str, Callable[[Comparison, GateLimits], GateTest]] = {
    test.__name__: test
    for test in (
        ranks_identically,
        champion_is_miscalibrated,
        likelihood_is_greater,
        level_holds,
        approval_rate_holds,
        fairness_holds,
    )
}

NOT_FOR_A_RECALIBRATION = {
    **dict.fromkeys(
        ("ranks_no_worse", "ranks_better"),
        "the ranking is the champion's, by ranks_identically and graph_is_the_champions",
    ),
    **dict.fromkeys(
        ("brier_is_no_worse", "log_loss_is_no_worse"),
        "likelihood_is_greater requires a lower log loss",
    ),
    "level_is_right": "level_holds is stricter",
    "judges_alike": "the PDs change on purpose, in the champion's order",
}
"""The tests of `COMPARISONS` that do not apply to a recalibration, with the reason."""


def crashed_test(name: str, error: Exception) -> GateTest:
    """The failed result of a test that raised an error."""
    return GateTest(
        name=name,
        passed=False,
        sentence=f"{name} could not be tested: {type(error).__name__}: {error}",
    )


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None
