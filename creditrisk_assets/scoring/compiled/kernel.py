"""Kernels: the graphs of a bundle as machine code, with the answers of the bundle itself.

`proof.load_kernel` gives a kernel that has passed the proof. Slope, intercept and cut-off are
arguments of the machine code and the reference profile is a part of it: a recalibrated bundle uses
the code of its parent.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import (
    GRAPH,
    REASONS_GRAPH,
    Bundle,
    DecisionRule,
    Decisions,
    Scores,
    deciding_files,
)
from creditrisk_assets.scoring.compiled.emitter import emit
from creditrisk_assets.scoring.compiled.errors import KernelError
from creditrisk_assets.scoring.compiled.graph_file import read_graph
from creditrisk_assets.scoring.compiled.loading import COLUMN_TYPES
from creditrisk_assets.scoring.compiled.native import NativeCode, compile_text, compiler_version
from creditrisk_assets.scoring.compiled.object_cache import cached
from creditrisk_assets.scoring.compiled.program import COMPARISONS, TYPES, Program
from creditrisk_assets.scoring.compiled.tracer import trace

Rows = NDArray[np.float32] | Sequence[NDArray[Any]]
"""Rows x fields, float32, in any layout; or a column for each field: one-dimensional, contiguous,
int64, float64 or float32, of equal length. A column of Arrow without nulls is one as it is
(`to_numpy(zero_copy_only=True)`).
"""

COLUMN_CODES = {TYPES[name].str: code for name, (code, _) in COLUMN_TYPES.items()}

SCORE_OUTPUTS = ("default_probability", "score")
"""Outputs of the graph of the decision, with one value a row."""

REASONS_OUTPUTS = (*SCORE_OUTPUTS, "contributions", "reasons")
"""Outputs of the graph with reasons; the last two have several columns."""


@dataclass(frozen=True)
class ExplainedDecisions(Decisions):
    """Decisions with the contributions behind the reasons: n x reasons of the manifest, float64,
    log-odds.
    """

    contributions: NDArray[np.float64]


class CompiledGraph:
    """Machine code of one graph. Calls do not disturb each other and run without Python's lock.

    Args:
        program: of the graph.
        fields: number of fields.
        calibration: slope and intercept.
        cache: folder of object files, or None.
    """

    def __init__(
        self, program: Program, fields: int, calibration: tuple[float, float], cache: Path | None
    ) -> None:
        text = emit(program, len(calibration))
        key = f"{compiler_version()}\n{text}".encode()
        self._code = NativeCode(cached(cache, key, lambda: compile_text(text)))
        self._fields = fields
        self._calibration = calibration
        self._outputs = [
            (() if name in SCORE_OUTPUTS else (len(numbers),), TYPES[program.type(numbers[0])])
            for name, numbers in program.outputs.items()
        ]
        address, number = ctypes.c_void_p, ctypes.c_int64
        tail: tuple[Any, ...] = (
            number,
            *(ctypes.c_double for _ in calibration),
            *(address for _ in self._outputs),
        )
        self._from_matrix = ctypes.CFUNCTYPE(None, address, number, number, *tail)(
            self._code.address("from_matrix")
        )
        self._from_columns = ctypes.CFUNCTYPE(None, address, address, *tail)(
            self._code.address("from_columns")
        )

    def __call__(self, rows: Rows) -> list[NDArray[Any]]:
        """Outputs of the graph for rows.

        Raises:
            ValueError: if the rows are none of `Rows`.
        """
        if isinstance(rows, np.ndarray):
            outputs = self._outputs_of(self._checked_matrix(rows))
            if len(rows):
                self._from_matrix(rows.ctypes.data, *rows.strides, len(rows), *self._tail(outputs))
            return outputs
        count = self._checked_columns(rows)
        outputs = self._outputs_of(count)
        if count:
            addresses = np.array([column.ctypes.data for column in rows], dtype=np.uintp)
            kinds = np.array([COLUMN_CODES[column.dtype.str] for column in rows], dtype=np.int64)
            self._from_columns(
                addresses.ctypes.data, kinds.ctypes.data, count, *self._tail(outputs)
            )
        return outputs

    def _outputs_of(self, count: int) -> list[NDArray[Any]]:
        """Arrays for the answers of some rows."""
        return [np.empty((count, *columns), dtype=kind) for columns, kind in self._outputs]

    def _tail(self, outputs: list[NDArray[Any]]) -> tuple[Any, ...]:
        """Last parameters of a call: the calibration and the addresses of new arrays, found in a
        fifth of the time of `output.ctypes.data`.
        """
        firsts = (ctypes.c_char.from_buffer(output) for output in outputs)  # type: ignore[arg-type]  # numpy's types know no buffers before Python 3.12
        return (*self._calibration, *map(ctypes.byref, firsts))

    def _checked_matrix(self, rows: NDArray[np.float32]) -> int:
        if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != self._fields:
            raise ValueError(
                f"rows are {rows.shape} of {rows.dtype}; valid: (n, {self._fields}) of float32"
            )
        return len(rows)

    def _checked_columns(self, columns: Sequence[NDArray[Any]]) -> int:
        if len(columns) != self._fields:
            raise ValueError(f"rows have {len(columns)} columns; valid: {self._fields}")
        count = len(columns[0])
        for place, column in enumerate(columns):
            if (
                column.dtype.str not in COLUMN_CODES
                or column.shape != (count,)
                or not (column.flags.c_contiguous and column.flags.aligned)
            ):
                raise ValueError(
                    f"column {place} is {column.shape} of {column.dtype}; valid: ({count},) of "
                    "int64, float64 or float32, contiguous"
                )
        return count


@dataclass(frozen=True)
class Kernel:
    """Machine code of both graphs of a bundle, for one reference profile.

    Attributes:
        cut_off: the bundle's own.
        reference: profile that the reasons refer to.
        thresholds: for each field, the numbers that the trees and features compare it with.
        decision: PD and points.
        reasons: PD, points, contributions and reasons.
    """

    cut_off: float
    reference: tuple[float | None, ...]
    thresholds: tuple[tuple[float, ...], ...]
    decision: CompiledGraph
    reasons: CompiledGraph

    def score(self, rows: Rows, cut_off: float | None = None) -> Scores:
        """Score rows as `Bundle.score`, in equal bits.

        Raises:
            ValueError: if the rows are none of `Rows`.
        """
        probability, score = self.decision(rows)
        limit = self.cut_off if cut_off is None else cut_off
        return Scores(probability, score, (probability >= limit).astype(np.int8))

    def decide(self, rows: Rows, rule: DecisionRule) -> ExplainedDecisions:
        """Decide on rows as `Bundle.decide`, in equal bits.

        Raises:
            KernelError: if the rule has another reference profile than the kernel.
            ValueError: if the rows are none of `Rows`.
        """
        if tuple(rule.reference) != self.reference:
            raise KernelError("the rule's reference is another than the kernel's; compile it anew")
        probability, score, contributions, reasons = self.reasons(rows)
        prediction = (probability >= rule.cut_off).astype(np.int8)
        return ExplainedDecisions(probability, score, prediction, reasons, contributions)


def compile_kernel(bundle: Bundle, rule: DecisionRule, cache: Path | None = None) -> Kernel:
    """Compile both graphs of a bundle, or take them from the cache. The kernel is not proved.

    Args:
        bundle: a loaded bundle.
        rule: its reference profile becomes part of the code.
        cache: folder of object files, or None.

    Raises:
        KernelError: if llvmlite is not there, a graph cannot be compiled, or the cache is unsafe.
        BundleError: if the bundle's files cannot be read any more.
        OSError: if the cache cannot be read or written.
    """
    files = deciding_files(bundle.location, bundle.sha256)
    fields = len(bundle.manifest.inputs)
    decision, reasons = read_graph(files[GRAPH]), read_graph(files[REASONS_GRAPH])
    for graph, valid in ((decision, SCORE_OUTPUTS), (reasons, REASONS_OUTPUTS)):
        if graph.outputs != valid:
            raise KernelError(f"a graph's outputs are {graph.outputs}; valid: {valid}")
    scoring = trace(decision, fields)
    explaining = trace(reasons, fields, rule.reference)
    return Kernel(
        cut_off=bundle.manifest.cut_off,
        reference=tuple(rule.reference),
        thresholds=_thresholds(scoring, fields),
        decision=CompiledGraph(scoring, fields, decision.calibration, cache),
        reasons=CompiledGraph(explaining, fields, reasons.calibration, cache),
    )


def _thresholds(program: Program, fields: int) -> tuple[tuple[float, ...], ...]:
    """Constants that each field is itself compared with, ascending."""
    found: list[set[float]] = [set() for _ in range(fields)]
    for operation in program.operations:
        if operation.name in COMPARISONS and len(operation.operands) == 2:
            pair = [(program.operations[one], program.value(one)) for one in operation.operands]
            for (side, _), (_, value) in (pair, reversed(pair)):
                if side.name == "input" and value is not None:
                    found[side.place].add(float(value))
    return tuple(tuple(sorted(values)) for values in found)
