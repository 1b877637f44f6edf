"""The runtime of decisions: compiled code where it is worth it and proved, otherwise the graphs in
onnxruntime. Both give the same bits.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, Decisions, Scores
from creditrisk_assets.scoring.compiled.errors import KernelError
from creditrisk_assets.scoring.compiled.kernel import Kernel, Rows
from creditrisk_assets.scoring.compiled.proof import different_bits, load_kernel

COMPILED = "compiled"
ONNXRUNTIME = "onnxruntime"

COMPARED_EVERY = 1_000
"""Of so many rows one is decided by the graphs, too."""

WORTH_ROWS = 40_000
"""Fewer rows are decided by the graphs before code is compiled and proved."""


class DifferentDecisionError(RuntimeError):
    """Compiled code and graph decided differently; the message has the row."""


class Runtime:
    """Decides on rows. Calls from several threads do not disturb each other.

    Args:
        bundle: the model.
        rule: in force.
        kernel: its compiled code; None if the graphs decide.
        reason: why its code cannot be used; empty with a kernel, and before it was compiled.
    """

    def __init__(
        self, bundle: Bundle, rule: DecisionRule, kernel: Kernel | None = None, reason: str = ""
    ) -> None:
        self.bundle = bundle
        self.rule = rule
        self.kernel = kernel
        self.reason = reason
        self._rows_to_compared = 0

    @classmethod
    def compiled(cls, bundle: Bundle, rule: DecisionRule, cache: Path) -> "Runtime":
        """Compile and prove a bundle's code; if that fails, the graphs decide.

        Args:
            bundle: a loaded bundle.
            rule: in force.
            cache: folder of compiled code.

        Raises:
            BundleError: if the bundle's files cannot be read any more.
        """
        try:
            return cls(bundle, rule, load_kernel(bundle, rule, cache))
        except (KernelError, OSError) as error:
            return cls(bundle, rule, reason=str(error))

    @classmethod
    def for_rows(
        cls, bundle: Bundle, rule: DecisionRule, rows: int, cache: Path | None
    ) -> "Runtime":
        """Choose the runtime for some rows in bulk.

        Args:
            bundle: a loaded bundle.
            rule: in force.
            rows: about how many.
            cache: folder of compiled code; without it the graphs decide.

        Raises:
            BundleError: if the bundle's files cannot be read any more.
        """
        if cache is None or rows < WORTH_ROWS:
            return cls(bundle, rule, reason="there are few rows")
        return cls.compiled(bundle, rule, cache)

    @property
    def name(self) -> str:
        """`COMPILED` or `ONNXRUNTIME`."""
        return COMPILED if self.kernel is not None else ONNXRUNTIME

    def __str__(self) -> str:
        if self.kernel is not None:
            return "compiled code"
        return f"{ONNXRUNTIME}, since {self.reason}" if self.reason else ONNXRUNTIME

    @property
    def may_be_compiled(self) -> bool:
        return self.kernel is None and not self.reason

    def under(self, rule: DecisionRule) -> "Runtime":
        """The runtime under another rule. The code is not that of another reference profile."""
        if tuple(rule.reference) == tuple(self.rule.reference):
            return Runtime(self.bundle, rule, self.kernel, self.reason)
        return Runtime(self.bundle, rule)

    def decide(self, rows: Rows) -> Decisions:
        """Decide on rows with reasons: a matrix, or a column for each input.

        Raises:
            DifferentDecisionError: if a compared row differs in any bit.
        """
        if self.kernel is None:
            return self.bundle.decide(_matrix(rows), self.rule)
        decisions = self.kernel.decide(rows, self.rule)
        compared = self._compared(len(decisions.prediction))
        if compared is not None:
            raw = _matrix(rows, compared)
            _require_equal(raw, decisions, self.bundle.decide(raw, self.rule), compared)
        return decisions

    def score(self, rows: Rows) -> Scores:
        """Decide on rows without reasons: a matrix, or a column for each input.

        Raises:
            DifferentDecisionError: if a compared row differs in any bit.
        """
        cut_off = self.rule.cut_off
        if self.kernel is None:
            return self.bundle.score(_matrix(rows), cut_off)
        scores = self.kernel.score(rows, cut_off)
        compared = self._compared(len(scores.prediction))
        if compared is not None:
            raw = _matrix(rows, compared)
            _require_equal(raw, scores, self.bundle.score(raw, cut_off), compared)
        return scores

    def _compared(self, count: int) -> slice | None:
        """The rows of the next call that the graphs decide, too; None if there is none."""
        first = self._rows_to_compared
        if first >= count:
            self._rows_to_compared = first - count
            return None
        behind_last = first + -(-(count - first) // COMPARED_EVERY) * COMPARED_EVERY
        self._rows_to_compared = behind_last - count
        return slice(first, None, COMPARED_EVERY)


def _require_equal(
    raw: NDArray[np.float32], answers: Scores, expected: Scores, compared: slice
) -> None:
    """Check the compared rows of some answers.

    Raises:
        DifferentDecisionError: if one differs in any bit.
    """
    for name, right in vars(expected).items():
        answer = getattr(answers, name)[compared]
        different = different_bits(answer, right)
        if different.any():
            row = raw[different.reshape(len(answer), -1).any(axis=1)][0]
            raise DifferentDecisionError(
                f"compiled code and graph differ in {name} of the row {row.tolist()}"
            )


def _matrix(rows: Rows, part: slice = slice(None)) -> NDArray[np.float32]:
    """Some rows as a matrix."""
    if isinstance(rows, np.ndarray):
        return rows[part]
    return np.stack([column[part].astype(np.float32) for column in rows], axis=1)
