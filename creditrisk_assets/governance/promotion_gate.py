"""The promotion gate: tests a challenger against the champion on the same held-out rows. The tests
belong in `gate_tests`; moving the alias belongs in the `champion` asset.

A challenger is promoted only if every test passes, so one that is no better passes with a
probability of at most `alpha`, that of `ranks_better` (an intersection-union test needs no
correction for the number of tests). A recalibration of the champion cannot rank better and must be
better calibrated; there `likelihood_is_greater` bounds the error by `alpha` if the champion's PDs
are right. This is the error of a single decision; `docs/evidence/promotion-gate.md` measures it.
"""

import contextlib
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditrisk_assets.decisions.shadow import ShadowScores
from creditrisk_assets.governance.gate_tests import (
    NO_SHADOW,
    NOT_FOR_A_RECALIBRATION,
    Comparison,
    compare,
    crashed_test,
    finite,
    shadow_agrees,
)
from creditrisk_assets.governance.verdict import (
    CutOffMove,
    GateTest,
    JudgedEvidence,
    JudgedSide,
    Verdict,
)
from creditrisk_assets.modelling.bundling import PARITY_TOLERANCE
from creditrisk_assets.modelling.fairness import Groups, fairness_by_group, protected_groups
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.recalibration import differences_beyond_calibration
from creditrisk_assets.policy import GateLimits
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import HELD_OUT, RECALIBRATION, Bundle, InputField, Scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
T = TypeVar("T")

Shadow = Callable[[Bundle, str], ShadowScores]
"""Returns the shadow scores of a challenger on decisions of a champion's version."""

LATENCY_REPEATS = 3
"""Repetitions of each golden request."""


class Side(Protocol):
    """A registered bundle, as the registry gives it."""

    @property
    def version(self) -> str:
        """Version in the registry."""

    @property
    def bundle_sha256(self) -> str:
        """Expected hash of its files."""

    def load(self) -> Bundle:
        """Load the bundle; check hash and golden answers."""


@dataclass(frozen=True)
class Evidence:
    """Matured rows of customers that neither side was fitted on.

    Attributes:
        inputs: the fields as described by the bundle of the rows.
        raw: n x inputs, float32.
        target: n, 1 = bad.
        groups: the group of each row by protected field.
        origin: source of the rows, in words.
    """

    inputs: list[InputField]
    raw: NDArray[np.float32]
    target: IntArray
    groups: Groups
    origin: str

    def raw_for(self, bundle: Bundle) -> NDArray[np.float32]:
        """The rows in the inputs of another bundle: n x its inputs.

        Raises:
            ValueError: if it numbers the codes of a field differently, or has a field that the rows
                lack.
        """
        own = {field.name: (place, field) for place, field in enumerate(self.inputs)}
        columns = []
        for field in bundle.manifest.inputs:
            place, own_field = own.get(field.name, (None, None))
            if place is None or own_field is None:
                raise ValueError(f"the held-out rows lack {field.name}; valid: {', '.join(own)}")
            if field.is_text and not field.code_numbers.items() <= own_field.code_numbers.items():
                raise ValueError(
                    f"{field.name}: codes {field.codes} are numbered differently; the rows have "
                    f"{own_field.codes}"
                )
            columns.append(place)
        return np.ascontiguousarray(self.raw[:, columns])

    def document(self) -> JudgedEvidence:
        """The evidence as part of the verdict."""
        digest = hashlib.sha256(self.raw.tobytes() + self.target.tobytes()).hexdigest()
        return JudgedEvidence(
            origin=self.origin, rows=len(self.target), bads=int(self.target.sum()), sha256=digest
        )


@dataclass(frozen=True)
class Judgement:
    """The verdict, with figures outside the document: outcomes and each side's PDs for the plots
    (empty if nothing was scored), and the challenger's measured time for one row.
    """

    verdict: Verdict
    target: IntArray
    probabilities: dict[str, FloatArray]
    latency_ms: float | None


def judge(
    challenger: Side,
    champion: Side | None,
    portfolio: Portfolio,
    limits: GateLimits,
    cut_off: float | None = None,
    shadow: Shadow = lambda *_: ShadowScores(),
) -> Judgement:
    """Judge a challenger on the held-out rows of its bundle.

    The first model needs a valid bundle and enough evidence. Any other needs another bundle than
    the champion's and must pass every test. A test that cannot run fails. A test without a subject,
    such as agreement on live traffic where there was none, is listed as not applicable.

    Args:
        challenger: the new version.
        champion: the version in force; None before the first.
        portfolio: of the evidence.
        limits: of the tests.
        cut_off: the policy's, for both sides; by default each side's own.
        shadow: scores stored decisions by a challenger; by default there are none.
    """
    trial = _Trial(challenger, champion, portfolio, limits, cut_off, shadow)
    with contextlib.suppress(_Stop):
        trial.run()
    return trial.judgement()


class _Stop(Exception):
    """A failed test that the remaining tests depend on."""


@dataclass
class _Trial:
    """A judgement: its input, results so far, and both sides' parts of the document."""

    _challenger: Side
    _champion: Side | None
    _portfolio: Portfolio
    _limits: GateLimits
    _cut_off: float | None
    _shadow: Shadow
    _evidence: Evidence | None = None
    _latency_ms: float | None = None
    _kind: str | None = None

    def __post_init__(self) -> None:
        self._tests: list[GateTest] = []
        self._scores: dict[str, Scores] = {}
        self._not_applied: dict[str, str] = {}
        self._judged = {"challenger": _unscored(self._challenger)}
        if self._champion:
            self._judged["champion"] = _unscored(self._champion)

    def run(self) -> None:
        """Run the tests in order.

        Raises:
            _Stop: at the first failed test that the remaining ones depend on.
        """
        challenger, champion = self._challenger, self._champion
        if champion is not None:
            self._require(
                "challenger_is_another_model", lambda: _another_model(challenger, champion)
            )
        bundle = self._require(
            "challenger_bundle_is_valid",
            lambda: _valid_bundle("challenger", challenger, self._portfolio),
        )
        self._kind = bundle.manifest.training.kind
        self._evidence = self._require(
            "evidence_is_enough", lambda: _enough_evidence(bundle, self._portfolio, self._limits)
        )
        scores = self._score("challenger", challenger, bundle, self._evidence)
        if champion is None:
            if self._recalibrates:
                self._tests.append(_champions_graph(bundle, None)[0])
            return
        in_force = self._require(
            "champion_bundle_is_valid", lambda: _valid_bundle("champion", champion, self._portfolio)
        )
        if self._recalibrates:
            self._require("graph_is_the_champions", lambda: _champions_graph(bundle, in_force))
        self._require("evidence_is_current", lambda: _current_evidence(bundle, in_force))
        champion_scores = self._score("champion", champion, in_force, self._evidence)
        comparison = Comparison(
            self._evidence.target,
            scores,
            champion_scores,
            self._evidence.groups,
            self._portfolio.words.rate,
        )
        self._tests += compare(comparison, self._limits, self._recalibrates)
        self._compare_shadow(bundle, champion)
        self._latency_ms = self._require("answers_in_time", lambda: _in_time(bundle, self._limits))

    def judgement(self) -> Judgement:
        """The verdict from the results."""
        failures = "; ".join(test.sentence for test in self._tests if not test.passed)
        outcome: Literal["first", "promoted", "rejected"]
        if failures:
            outcome, reason = "rejected", f"{failures}{self._figures}"
        elif self._champion is None:
            outcome, reason = "first", f"no champion before{self._figures}"
        else:
            better = (
                "challenger is the champion, better calibrated"
                if self._recalibrates
                else "challenger is better"
            )
            moved = self._cut_off_move
            outcome, reason = (
                "promoted",
                f"{better}{self._figures}" + (f"; {moved.sentence}" if moved else ""),
            )
        document = Verdict(
            verdict=outcome,
            reason=reason,
            portfolio=self._portfolio.name,
            challenger=self._judged["challenger"],
            champion=self._judged.get("champion"),
            evidence=self._evidence.document() if self._evidence else None,
            limits=self._limits,
            tests=self._tests,
            kind=self._kind,
            not_applied=self._not_applied | (NOT_FOR_A_RECALIBRATION if self._recalibrates else {}),
            cut_off=self._cut_off_move if outcome == "promoted" else None,
        )
        target = self._evidence.target if self._evidence else np.array([], dtype=np.int64)
        probabilities = {name: scores.default_probability for name, scores in self._scores.items()}
        return Judgement(document, target, probabilities, self._latency_ms)

    @property
    def _recalibrates(self) -> bool:
        return self._kind == RECALIBRATION

    @property
    def _cut_off_move(self) -> CutOffMove | None:
        """The change of cut-off and approval rate with the challenger; None if the sides were not
        compared.
        """
        if set(self._scores) != {"challenger", "champion"}:
            return None
        before, after = self._judged["champion"].cut_off, self._judged["challenger"].cut_off
        if before is None or after is None:
            return None
        rates = {
            name: float((scores.prediction == 0).mean()) for name, scores in self._scores.items()
        }
        return CutOffMove(
            rate=self._portfolio.words.rate,
            by="model" if self._cut_off is None else "policy",
            before=before,
            after=after,
            approval_rate_before=rates["champion"],
            approval_rate_after=rates["challenger"],
        )

    @property
    def _figures(self) -> str:
        if not self._scores or self._evidence is None:
            return ""
        figures = [self._judged[name].figures for name in self._scores]
        if self._recalibrates:
            level, loss = (
                " against ".join(f"{side[name]:.4f}" for side in figures)
                for name in ("mean_pd", "log_loss")
            )
            return (
                f": mean PD {level} at a bad rate of {figures[0]['bad_rate']:.4f}, log loss "
                f"{loss}, on {self._evidence.origin}"
            )
        auc, brier = (
            " against ".join(f"{side[name]:.4f}" for side in figures)
            for name in ("roc_auc", "brier")
        )
        return f": AUC {auc}, Brier {brier}, on {self._evidence.origin}"

    def _compare_shadow(self, challenger: Bundle, champion: Side) -> None:
        try:
            shadow = self._shadow(challenger, champion.version)
            if shadow.rows:
                self._tests.append(shadow_agrees(shadow, self._limits, self._recalibrates))
            else:
                self._not_applied["shadow_agrees"] = NO_SHADOW
        except Exception as error:  # such as changed decisions: no promotion, with the reason
            self._tests.append(crashed_test("shadow_agrees", error))

    def _score(self, name: str, side: Side, bundle: Bundle, evidence: Evidence) -> Scores:
        scores, self._judged[name] = self._require(
            f"{name}_scores_every_row", lambda: _scored(name, side, bundle, evidence, self._cut_off)
        )
        self._scores[name] = scores
        return scores

    def _require(self, name: str, act: Callable[[], tuple[GateTest, T]]) -> T:
        """Run a test and return its result if it passed. A test that crashes fails."""
        try:
            test, result = act()
        except Exception as error:  # any error fails the test and is in the verdict
            self._tests.append(crashed_test(name, error))
            raise _Stop from error
        self._tests.append(test)
        if not test.passed:
            raise _Stop
        return result


def held_out_evidence(bundle: Bundle, portfolio: Portfolio) -> Evidence:
    """The held-out rows of a bundle.

    Raises:
        ValueError: if an outcome is missing or is neither 0 nor 1.
    """
    rows = pd.read_parquet(io.BytesIO(bundle.document(HELD_OUT)))
    outcomes = rows[portfolio.target]
    wrong = outcomes[~outcomes.isin([0, 1])]
    if len(wrong):
        raise ValueError(
            f"{portfolio.target}: {len(wrong)} held-out rows have no outcome, such as "
            f"{wrong.iloc[0]!r}; valid: 0 or 1"
        )
    days = bundle.manifest.training.production_days
    source = f"the latest matured days, up to {max(days)}" if days else "the history"
    return Evidence(
        inputs=bundle.manifest.inputs,
        raw=rows[bundle.input_names].to_numpy(dtype=np.float32),
        target=outcomes.to_numpy(dtype=np.int64),
        groups=protected_groups(
            portfolio, {name: rows[name].to_numpy(dtype=np.float32) for name in portfolio.protected}
        ),
        origin=f"{len(rows):,} held-out rows of {source}",
    )


def _another_model(challenger: Side, champion: Side) -> tuple[GateTest, None]:
    same = challenger.bundle_sha256 == champion.bundle_sha256
    bundle = f"bundle {champion.bundle_sha256}"
    sentence = (
        f"the challenger is the champion: both are {bundle}"
        if same
        else f"the challenger is not the champion's {bundle}"
    )
    return GateTest(name="challenger_is_another_model", passed=not same, sentence=sentence), None


def _valid_bundle(name: str, side: Side, portfolio: Portfolio) -> tuple[GateTest, Bundle]:
    """Load a bundle, which checks hash and golden answers, and test its parity. Parity was measured
    at training: against scikit-learn, or for a recalibration against its line on the parent's
    log-odds.
    """
    bundle = side.load()
    bundle.require_fits(portfolio)
    parity = bundle.manifest.parity
    twin = "its line" if bundle.manifest.training.kind == RECALIBRATION else "scikit-learn"
    test = GateTest(
        name=f"{name}_bundle_is_valid",
        passed=bundle.sha256 == side.bundle_sha256
        and len(bundle.golden) > 0
        and parity <= PARITY_TOLERANCE,
        observed=finite(parity),
        limit=PARITY_TOLERANCE,
        n=len(bundle.golden),
        sentence=f"{name}, version {side.version}: SHA-256 {bundle.sha256}, {len(bundle.golden)} "
        f"golden requests give their answers, graph and {twin} differ by {parity:.1e}, at most "
        f"{PARITY_TOLERANCE:.0e}",
    )
    return test, bundle


def _enough_evidence(
    bundle: Bundle, portfolio: Portfolio, limits: GateLimits
) -> tuple[GateTest, Evidence]:
    evidence = held_out_evidence(bundle, portfolio)
    bads = int(evidence.target.sum())
    goods = len(evidence.target) - bads
    sentence = (
        f"{bads} bads and {goods} goods held out ({evidence.origin}); {limits.minimum_bads} of "
        "each needed to judge"
    )
    test = GateTest(
        name="evidence_is_enough",
        passed=min(bads, goods) >= limits.minimum_bads,
        observed=min(bads, goods),
        limit=limits.minimum_bads,
        n=len(evidence.target),
        sentence=sentence,
    )
    return test, evidence


def _champions_graph(bundle: Bundle, champion: Bundle | None) -> tuple[GateTest, None]:
    """Test that a recalibration changes slope and intercept only, and so nothing else for any
    customer.
    """
    if champion is None:
        differences = ["there is no champion that it could be a recalibration of"]
    else:
        differences = differences_beyond_calibration(bundle, champion)
    test = GateTest(
        name="graph_is_the_champions",
        passed=not differences,
        observed=len(differences),
        limit=0,
        sentence="; ".join(differences)
        or "with the champion's slope and intercept its graphs are the champion's, byte for byte",
    )
    return test, None


def _current_evidence(bundle: Bundle, champion: Bundle) -> tuple[GateTest, None]:
    """Test that the evidence is not older than the champion's latest training day."""
    newest = max(bundle.manifest.training.production_days, default="the history")
    learned = max(champion.manifest.training.production_days, default="the history")
    test = GateTest(
        name="evidence_is_current",
        passed=learned == "the history" or (newest != "the history" and newest >= learned),
        n=0,
        sentence=f"the latest evidence is of {newest}, the champion has learned up to {learned}; "
        "it must not be older",
    )
    return test, None


def _scored(
    name: str, side: Side, bundle: Bundle, evidence: Evidence, cut_off: float | None
) -> tuple[GateTest, tuple[Scores, JudgedSide]]:
    scores = bundle.score(evidence.raw_for(bundle), cut_off)
    inside = (scores.default_probability >= 0) & (scores.default_probability <= 1)  # NaN is not
    test = GateTest(
        name=f"{name}_scores_every_row",
        passed=bool(inside.all()),
        observed=int(inside.sum()),
        limit=len(inside),
        n=len(inside),
        sentence=f"{name}: {int(inside.sum()):,} of {len(inside):,} rows have a PD between 0 and 1",
    )
    if not test.passed:
        return test, (scores, _unscored(side))
    judged = JudgedSide(
        version=side.version,
        bundle_sha256=side.bundle_sha256,
        cut_off=bundle.manifest.cut_off if cut_off is None else cut_off,
        figures=ranking_and_calibration(evidence.target, scores.default_probability),
        fairness=fairness_by_group(evidence.target, scores, evidence.groups),
    )
    return test, (scores, judged)


def _in_time(bundle: Bundle, limits: GateLimits) -> tuple[GateTest, float]:
    """Test the median time of single golden requests. The time differs from run to run, so the
    document has the limit alone.
    """
    rows = np.array([request.raw for request in bundle.golden], dtype=np.float32)
    seconds = []
    for place in [*range(len(rows))] * LATENCY_REPEATS:
        start = time.perf_counter()
        bundle.score(rows[place : place + 1])
        seconds.append(time.perf_counter() - start)
    latency_ms = float(np.median(seconds)) * 1_000
    passed = latency_ms <= limits.latency_ms
    test = GateTest(
        name="answers_in_time",
        passed=passed,
        limit=limits.latency_ms,
        n=len(seconds),
        sentence=f"the median time of one row is {'not ' if not passed else ''}within "
        f"{limits.latency_ms:g} ms",
    )
    return test, latency_ms


def _unscored(side: Side) -> JudgedSide:
    return JudgedSide(version=side.version, bundle_sha256=side.bundle_sha256)
