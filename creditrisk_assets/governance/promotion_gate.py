"""Whether a challenger replaces the champion: tests on the same held-out rows, and no promotion
without evidence.

A challenger is promoted only if every test passes, so one that is no better passes with at most the
probability `alpha` of the test that it ranks better (an intersection-union test needs no correction
for the number of tests). A challenger that is the champion with a new calibration cannot rank
better and must be better calibrated; there the likelihood of the held-out outcomes carries the
error, which `alpha` bounds where the champion's PDs are right. That is the error of one decision;
`docs/evidence/promotion-gate.md` measures it. The gate computes and says why; moving the
alias is the `champion` asset's doing.
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
    crashed,
    finite,
    shadow_agrees,
)
from creditrisk_assets.governance.verdict import (
    CutOffMove,
    GateLimits,
    GateTest,
    JudgedEvidence,
    JudgedSide,
    Verdict,
)
from creditrisk_assets.modelling.bundling import PARITY_TOLERANCE
from creditrisk_assets.modelling.fairness import Groups, fairness_by_group, protected_groups
from creditrisk_assets.modelling.metrics import ranking_and_calibration
from creditrisk_assets.modelling.recalibration import differences_beyond_calibration
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import HELD_OUT, RECALIBRATION, Bundle, InputField, Scores

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
T = TypeVar("T")

Shadow = Callable[[Bundle, str], ShadowScores]
"""Gives what a challenger said of live traffic, and the champion of a version."""

LATENCY_REPEATS = 3
"""Times that each golden request is asked alone."""


class Side(Protocol):
    """A registered bundle, as the registry gives it."""

    @property
    def version(self) -> str:
        """Its number in the registry."""

    @property
    def bundle_sha256(self) -> str:
        """The hash that its files must have."""

    def load(self) -> Bundle:
        """Read it back, hash and golden answers checked."""


@dataclass(frozen=True)
class Evidence:
    """Matured rows of customers that neither side has learned from.

    Attributes:
        inputs: the fields as the bundle that the rows came with describes them.
        raw: n x inputs, float32.
        target: n, 1 = bad.
        groups: the group of each row by protected field.
        origin: where the rows come from.
    """

    inputs: list[InputField]
    raw: NDArray[np.float32]
    target: IntArray
    groups: Groups
    origin: str

    def raw_for(self, bundle: Bundle) -> NDArray[np.float32]:
        """The rows as another bundle takes them: n x its inputs.

        Raises:
            ValueError: if it numbers the codes of a field otherwise, or has a field that the rows
                lack.
        """
        known = {one.name: (place, one) for place, one in enumerate(self.inputs)}
        columns = []
        for wanted in bundle.manifest.inputs:
            place, given = known.get(wanted.name, (None, None))
            if place is None or given is None:
                raise ValueError(f"the held-out rows lack {wanted.name}; valid: {', '.join(known)}")
            if wanted.is_text and not wanted.code_numbers.items() <= given.code_numbers.items():
                raise ValueError(
                    f"{wanted.name}: codes {wanted.codes} were numbered otherwise; the rows have "
                    f"{given.codes}"
                )
            columns.append(place)
        return np.ascontiguousarray(self.raw[:, columns])

    def described(self) -> JudgedEvidence:
        """What the document says of it."""
        digest = hashlib.sha256(self.raw.tobytes() + self.target.tobytes()).hexdigest()
        return JudgedEvidence(
            origin=self.origin, rows=len(self.target), bads=int(self.target.sum()), sha256=digest
        )


@dataclass(frozen=True)
class Judgement:
    """The verdict, and what is shown beside it and is no part of the document: each side's PDs on
    the evidence, for the plots (empty where nothing was scored), and the challenger's measured time
    for one row.
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
    """Judge a challenger by the held-out rows that came with it.

    The first model needs a valid bundle and enough evidence. Any other must be another bundle than
    the champion's and pass every test. What cannot be tested has failed. A test whose subject does
    not exist, such as agreement on live traffic where there was none, is not applied and said not
    to be.

    Args:
        challenger: the new version.
        champion: the version in force; None before the first.
        portfolio: whose customers the evidence is of.
        limits: what counts as evidence.
        cut_off: the policy's, by which both would decide; by default each side's own.
        shadow: scores stored decisions by a challenger; by default there are none.
    """
    trial = _Trial(challenger, champion, portfolio, limits, cut_off, shadow)
    with contextlib.suppress(_NotProven):
        trial.hear()
    return trial.judgement()


class _NotProven(Exception):
    """A test failed without which the others cannot be carried out."""


class _Trial:
    """One challenge: what has been tested so far, and what the document will say of both sides."""

    def __init__(
        self,
        challenger: Side,
        champion: Side | None,
        portfolio: Portfolio,
        limits: GateLimits,
        cut_off: float | None,
        shadow: Shadow,
    ) -> None:
        self._sides = challenger, champion
        self._shadow = shadow
        self._portfolio, self._limits, self._cut_off = portfolio, limits, cut_off
        self._tests: list[GateTest] = []
        self._evidence: Evidence | None = None
        self._scores: dict[str, Scores] = {}
        self._judged = {"challenger": _named(challenger)} | (
            {"champion": _named(champion)} if champion else {}
        )
        self._latency_ms: float | None = None
        self._kind: str | None = None
        self._not_applied: dict[str, str] = {}

    def hear(self) -> None:
        """Carry the tests out, one after the other.

        Raises:
            _NotProven: at the first failed test without which the others cannot be carried out.
        """
        challenger, champion = self._sides
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
        """What follows from the tests."""
        failures = "; ".join(test.sentence for test in self._tests if not test.passed)
        outcome: Literal["first", "promoted", "rejected"]
        if failures:
            outcome, reason = "rejected", f"{failures}{self._figures}"
        elif self._sides[1] is None:
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
            evidence=self._evidence.described() if self._evidence else None,
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
        """How the cut-off and the approval rate change with the challenger; None where the sides
        were not compared.
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
                " against ".join(f"{one[name]:.4f}" for one in figures)
                for name in ("mean_pd", "log_loss")
            )
            return (
                f": mean PD {level} at a bad rate of {figures[0]['bad_rate']:.4f}, log loss "
                f"{loss}, on {self._evidence.origin}"
            )
        auc, brier = (
            " against ".join(f"{one[name]:.4f}" for one in figures) for name in ("roc_auc", "brier")
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
            self._tests.append(crashed("shadow_agrees", error))

    def _score(self, who: str, side: Side, bundle: Bundle, evidence: Evidence) -> Scores:
        scores, self._judged[who] = self._require(
            f"{who}_scores_every_row", lambda: _scored(who, side, bundle, evidence, self._cut_off)
        )
        self._scores[who] = scores
        return scores

    def _require(self, name: str, act: Callable[[], tuple[GateTest, T]]) -> T:
        """What an act found, if its test passed. A test that crashes has failed, whatever the error
        is.
        """
        try:
            test, found = act()
        except (
            Exception
        ) as error:  # the answer to any error is the same: not promoted, and said why
            self._tests.append(crashed(name, error))
            raise _NotProven from error
        self._tests.append(test)
        if not test.passed:
            raise _NotProven
        return found


def held_out_evidence(bundle: Bundle, portfolio: Portfolio) -> Evidence:
    """The held-out rows that came with a bundle.

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
    told = f"bundle {champion.bundle_sha256}"
    sentence = (
        f"the challenger is the champion: both are {told}"
        if same
        else f"the challenger is not the champion's {told}"
    )
    return GateTest(name="challenger_is_another_model", passed=not same, sentence=sentence), None


def _valid_bundle(who: str, side: Side, portfolio: Portfolio) -> tuple[GateTest, Bundle]:
    """Hash and golden answers are checked by loading; the graph's distance from scikit-learn, for a
    recalibration from the new line on its parent's log-odds, was measured when it was made.
    """
    bundle = side.load()
    bundle.require_fits(portfolio)
    parity = bundle.manifest.parity
    twin = "its line" if bundle.manifest.training.kind == RECALIBRATION else "scikit-learn"
    test = GateTest(
        name=f"{who}_bundle_is_valid",
        passed=bundle.sha256 == side.bundle_sha256
        and len(bundle.golden) > 0
        and parity <= PARITY_TOLERANCE,
        observed=finite(parity),
        limit=PARITY_TOLERANCE,
        n=len(bundle.golden),
        sentence=f"{who}, version {side.version}: SHA-256 {bundle.sha256}, {len(bundle.golden)} "
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
    """What a recalibration may change and what not, for every customer and not only for those at
    hand.
    """
    if champion is None:
        found = ["there is no champion that it could be a recalibration of"]
    else:
        found = differences_beyond_calibration(bundle, champion)
    test = GateTest(
        name="graph_is_the_champions",
        passed=not found,
        observed=len(found),
        limit=0,
        sentence="; ".join(found)
        or "with the champion's slope and intercept its graphs are the champion's, byte for byte",
    )
    return test, None


def _current_evidence(bundle: Bundle, champion: Bundle) -> tuple[GateTest, None]:
    """A champion that has followed production must not be judged by the days before it."""
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
    who: str, side: Side, bundle: Bundle, evidence: Evidence, cut_off: float | None
) -> tuple[GateTest, tuple[Scores, JudgedSide]]:
    scores = bundle.score(evidence.raw_for(bundle), cut_off)
    inside = (scores.default_probability >= 0) & (scores.default_probability <= 1)  # NaN is not
    test = GateTest(
        name=f"{who}_scores_every_row",
        passed=bool(inside.all()),
        observed=int(inside.sum()),
        limit=len(inside),
        n=len(inside),
        sentence=f"{who}: {int(inside.sum()):,} of {len(inside):,} rows have a PD between 0 and 1",
    )
    if not test.passed:
        return test, (scores, _named(side))
    judged = JudgedSide(
        version=side.version,
        bundle_sha256=side.bundle_sha256,
        cut_off=bundle.manifest.cut_off if cut_off is None else cut_off,
        figures=ranking_and_calibration(evidence.target, scores.default_probability),
        fairness=fairness_by_group(evidence.target, scores, evidence.groups),
    )
    return test, (scores, judged)


def _in_time(bundle: Bundle, limits: GateLimits) -> tuple[GateTest, float]:
    """The median over single golden requests. The figure differs from run to run, so the document
    has the limit alone.
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


def _named(side: Side) -> JudgedSide:
    return JudgedSide(version=side.version, bundle_sha256=side.bundle_sha256)
