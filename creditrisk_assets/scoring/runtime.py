"""The runtime of decisions in bulk: compiled code where it is worth it and proved, otherwise the
graphs in onnxruntime. Both give the same bits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import Bundle, DecisionRule, Decisions
from creditrisk_assets.scoring.compiled.errors import KernelError
from creditrisk_assets.scoring.compiled.kernel import Kernel
from creditrisk_assets.scoring.compiled.proof import different_bits, load_kernel

COMPARED_EVERY = 1_000
"""Of so many rows one is decided by the graphs, too."""

WORTH_BYTES = 4 << 20
"""A smaller file is decided by the graphs before code is compiled and proved."""


class DifferentDecisionError(RuntimeError):
    """Compiled code and graph decided differently; the message has the row."""


@dataclass(frozen=True)
class Runtime:
    """Decides on rows in bulk.

    Attributes:
        bundle: the model.
        rule: in force.
        kernel: its compiled code; None if the graphs decide.
        reason: why the graphs decide; empty with a kernel.
    """

    bundle: Bundle
    rule: DecisionRule
    kernel: Kernel | None
    reason: str

    @classmethod
    def of(cls, bundle: Bundle, rule: DecisionRule, file_bytes: int, cache: Path) -> "Runtime":
        """Choose the runtime for a file.

        Args:
            bundle: a loaded bundle.
            rule: in force.
            file_bytes: size of the file.
            cache: folder of compiled code.

        Raises:
            BundleError: if the bundle's files cannot be read any more.
        """
        if file_bytes < WORTH_BYTES:
            return cls(bundle, rule, None, "the file is small")
        try:
            return cls(bundle, rule, load_kernel(bundle, rule, cache), "")
        except (KernelError, OSError) as error:
            return cls(bundle, rule, None, str(error))

    def __str__(self) -> str:
        return "compiled code" if self.kernel is not None else f"onnxruntime, since {self.reason}"

    def decide(self, raw: NDArray[np.float32]) -> Decisions:
        """Decide on rows x fields, float32.

        Raises:
            DifferentDecisionError: if a compared row differs in any bit.
        """
        if self.kernel is None:
            return self.bundle.decide(raw, self.rule)
        decisions = self.kernel.decide(raw, self.rule)
        expected = self.bundle.decide(raw[::COMPARED_EVERY], self.rule)
        for name in ("default_probability", "score", "prediction", "reasons"):
            answers = getattr(decisions, name)[::COMPARED_EVERY]
            different = different_bits(answers, getattr(expected, name))
            if different.any():
                row = raw[::COMPARED_EVERY][different.reshape(len(answers), -1).any(axis=1)][0]
                raise DifferentDecisionError(
                    f"compiled code and graph differ in {name} of the row {row.tolist()}; nothing "
                    "is written"
                )
        return decisions
