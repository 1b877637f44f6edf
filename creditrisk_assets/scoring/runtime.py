"""The runtime of decisions: compiled code where it is worth it and proved, otherwise the graphs in
onnxruntime. Both give the same bits.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, Decisions
from creditrisk_assets.scoring.compiled.errors import KernelError
from creditrisk_assets.scoring.compiled.kernel import Kernel
from creditrisk_assets.scoring.compiled.proof import different_bits, load_kernel

COMPILED = "compiled"
ONNXRUNTIME = "onnxruntime"

COMPARED_EVERY = 1_000
"""Of so many rows one is decided by the graphs, too."""

WORTH_BYTES = 4 << 20
"""A smaller file is decided by the graphs before code is compiled and proved."""


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
    def for_file(
        cls, bundle: Bundle, rule: DecisionRule, file_bytes: int, cache: Path
    ) -> "Runtime":
        """Choose the runtime for a file of some bytes; the others are those of `compiled`.

        Raises:
            BundleError: if the bundle's files cannot be read any more.
        """
        if file_bytes < WORTH_BYTES:
            return cls(bundle, rule, reason="the file is small")
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

    def decide(self, raw: NDArray[np.float32]) -> Decisions:
        """Decide on rows x fields, float32.

        Raises:
            DifferentDecisionError: if a compared row differs in any bit.
        """
        if self.kernel is None:
            return self.bundle.decide(raw, self.rule)
        decisions = self.kernel.decide(raw, self.rule)
        first = self._rows_to_compared
        if first < len(raw):
            self._compare(raw, decisions, slice(first, None, COMPARED_EVERY))
            first += -(-(len(raw) - first) // COMPARED_EVERY) * COMPARED_EVERY
        self._rows_to_compared = first - len(raw)
        return decisions

    def _compare(self, raw: NDArray[np.float32], decisions: Decisions, rows: slice) -> None:
        expected = self.bundle.decide(raw[rows], self.rule)
        for name in ("default_probability", "score", "prediction", "reasons"):
            answers = getattr(decisions, name)[rows]
            different = different_bits(answers, getattr(expected, name))
            if different.any():
                row = raw[rows][different.reshape(len(answers), -1).any(axis=1)][0]
                raise DifferentDecisionError(
                    f"compiled code and graph differ in {name} of the row {row.tolist()}"
                )
