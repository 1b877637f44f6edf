"""Proof of a kernel: its answers and those of the graphs, on the same rows, in all bits.

A kernel that fails is not used. The rows are the golden requests and generated ones: fields on
their thresholds and on the numbers next to these, at the ends of their ranges, missing, and odd
(infinite, subnormal, -0.0, …), in calls of several lengths.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditrisk_assets.scoring.bundle import REASONS_CHUNK_ROWS, Bundle, DecisionRule, InputField
from creditrisk_assets.scoring.compiled.errors import ProofError
from creditrisk_assets.scoring.compiled.kernel import Kernel, compile_kernel

ROWS_AT_LOAD = 4_096
"""Generated rows before a kernel is used: about 0.3 s, nearly all of it in the graphs."""

CALL_LENGTHS = (1, 15, 16, 17, 63, 64, 65, 130)
"""Lengths of the calls besides the whole: around a vector and a block of rows."""

ODD_VALUES = np.array(
    [
        *(0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 2.0**24, np.nan, np.inf, -np.inf),
        *(1e-45, -1e-45, 1.1754944e-38, 1e30, -1e30, 3.4028235e38, -3.4028235e38),
    ],
    dtype=np.float32,
)
"""Zeros, halves, the end of the whole numbers, missing, infinite, subnormal, smallest normal, and
largest values.
"""


def load_kernel(
    bundle: Bundle, rule: DecisionRule | None = None, cache: Path | None = None
) -> Kernel:
    """Compile a bundle, or take its code from the cache, and prove it.

    Args:
        bundle: a loaded bundle.
        rule: rule in force, by default the bundle's own; its reference profile becomes part of the
            code.
        cache: folder of object files, or None.

    Raises:
        KernelError: if llvmlite is not there, a graph cannot be compiled, the cache is unsafe, or
            any answer differs in any bit.
        BundleError: if the bundle's files cannot be read any more.
        OSError: if the cache cannot be read or written.
    """
    kernel = compile_kernel(bundle, rule or bundle.manifest.rule, cache)
    prove(kernel, bundle)
    return kernel


def prove(kernel: Kernel, bundle: Bundle, rows: int = ROWS_AT_LOAD, seed: int = 0) -> int:
    """Compare a kernel with the graphs of its bundle.

    Args:
        kernel: to be proved.
        bundle: with its graphs.
        rows: number of generated rows; about a minute of a core for a million.
        seed: of the generated rows.

    Returns:
        Number of rows left out: outside of the contract, and the graph itself gives them other bits
        at another place of a batch, as it does with huge values that cancel each other.

    Raises:
        ProofError: if any answer differs in any bit.
    """
    golden = np.array([request.raw for request in bundle.golden], dtype=np.float32)
    left_out = _compare(kernel, bundle, golden)
    rng = np.random.default_rng(seed)
    for start in range(0, rows, REASONS_CHUNK_ROWS):
        count = min(REASONS_CHUNK_ROWS, rows - start)
        generated = generated_rows(bundle.manifest.inputs, kernel.thresholds, golden, count, rng)
        left_out += _compare(kernel, bundle, generated)
        _compare_columns(kernel, generated)
    return left_out


def generated_rows(
    inputs: list[InputField],
    thresholds: tuple[tuple[float, ...], ...],
    golden: NDArray[np.float32],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Rows near the edges of a model.

    Args:
        inputs: fields of the bundle.
        thresholds: of each field.
        golden: n x fields, rows that the others are made from.
        count: number of rows.
        rng: source of chance.

    Returns:
        count x fields, float32. Each row is a mixture of golden rows, in which a tenth, a third or
        all of the values are replaced: by values within the range, by edges, by odd values or by
        NaN.
    """
    shape = (count, len(inputs))
    fields = np.arange(len(inputs))
    rows = golden[rng.integers(0, len(golden), shape), fields]
    share = rng.choice([0.1, 0.3, 1.0], size=(count, 1), p=[0.5, 0.4, 0.1])
    replaced = rng.random(shape) < share
    kind = rng.choice(4, size=shape, p=[0.35, 0.4, 0.15, 0.1])
    odd = rng.random(size=(count, 1)) < 0.5  # half of the rows stay without odd values
    for place, field in enumerate(inputs):
        low, high = field.minimum or 0.0, 1.0 if field.maximum is None else field.maximum
        within = low + (high - low) * rng.random(count)
        candidates = [
            within if field.kind == "decimal" else np.round(within),
            rng.choice(edges(field, thresholds[place]), count),
            np.where(odd[:, 0], rng.choice(ODD_VALUES, count), golden[0, place]),
            np.full(count, np.nan),
        ]
        chosen = np.choose(kind[:, place], candidates).astype(np.float32)
        rows[:, place] = np.where(replaced[:, place], chosen, rows[:, place])
    return np.asarray(rows)


def edges(field: InputField, thresholds: tuple[float, ...]) -> NDArray[np.float32]:
    """Thresholds of a field, the ends of its range and its codes, each with its two neighbours."""
    ends = [value for value in (field.minimum, field.maximum) if value is not None]
    values = np.array([*thresholds, *ends, *field.code_numbers.values(), 0.0], dtype=np.float32)
    finite = values[np.isfinite(values)]
    limit = np.float32(np.inf)
    return np.concatenate([finite, np.nextafter(finite, limit), np.nextafter(finite, -limit)])


def _compare(kernel: Kernel, bundle: Bundle, rows: NDArray[np.float32]) -> int:
    """Compare both graphs, in one call of all rows and in shorter ones; returns the rows that are
    left out.
    """
    reference = np.array([kernel.reference], dtype=np.float32)
    left_out: set[int] = set()
    for compiled, session, feed in (
        (kernel.decision, bundle.session, {"raw": rows}),
        (kernel.reasons, bundle.reasons_session, {"raw": rows, "reference": reference}),
    ):
        names = [output.name for output in session.get_outputs()]
        expected = session.run(names, feed)
        for part in _parts(len(rows)):
            answers = compiled(rows[part])
            for name, answer, whole in zip(names, answers, expected, strict=True):
                right = whole[part]
                for place in np.argwhere(different_bits(answer, right)).tolist():
                    row = rows[part][place[0]]
                    if part.start + place[0] in left_out:
                        continue
                    if fits_contract(bundle.manifest.inputs, row) or not _depends_on_place(
                        bundle, row, reference[0]
                    ):
                        raise ProofError(
                            f"{name} is {answer[tuple(place)]!r} for {row.tolist()}; valid: "
                            f"exactly {right[tuple(place)]!r}, as the graph gives it"
                        )
                    left_out.add(part.start + place[0])
    return len(left_out)


def _compare_columns(kernel: Kernel, rows: NDArray[np.float32]) -> None:
    """Compare the answers to columns with those to the matrix of them."""
    fractions = [np.ascontiguousarray(column) for column in rows.T.astype(np.float64)]
    limited = np.clip(np.nan_to_num(rows), -(2.0**62), 2.0**62)
    wholes = [np.ascontiguousarray(column) for column in limited.T.astype(np.int64)]
    for columns in (fractions, wholes):
        matrix = np.column_stack([column.astype(np.float32) for column in columns])
        for graph in (kernel.decision, kernel.reasons):
            for answer, right in zip(graph(columns), graph(matrix), strict=True):
                if different_bits(answer, right).any():
                    raise ProofError(
                        f"columns of {columns[0].dtype} give other answers than their matrix; "
                        "valid: equal bits"
                    )


def fits_contract(inputs: list[InputField], row: NDArray[np.float32]) -> bool:
    """Whether a row is one of a valid record."""
    return all(_fits_field(field, value) for field, value in zip(inputs, row.tolist(), strict=True))


def _fits_field(field: InputField, value: float) -> bool:
    if np.isnan(value):
        return not field.required
    if field.codes:
        return value in field.code_numbers.values()
    low = -np.inf if field.minimum is None else field.minimum
    high = np.inf if field.maximum is None else field.maximum
    return bool(low <= value <= high) and (field.kind == "decimal" or value.is_integer())


def _depends_on_place(
    bundle: Bundle, row: NDArray[np.float32], reference: NDArray[np.float32]
) -> bool:
    """Whether the graph itself gives a row, or one of its coalitions with the reference, other bits
    at another place of a batch.

    onnxruntime adds along rows in an order that depends on their addresses. Sums of whole numbers
    within their ranges are exact in any order; those of huge values that cancel are not.
    """
    names = bundle.input_names
    groups = [[names.index(name) for name in one.fields] for one in bundle.manifest.reasons]
    mixed = np.tile(row, (1 << len(groups), 1))
    for coalition, line in enumerate(mixed):
        for group, fields in enumerate(groups):
            if not coalition >> group & 1:
                line[fields] = reference[fields]
    first, *others = (
        bundle.score(np.concatenate([mixed[:shift], mixed])).score[shift:] for shift in range(4)
    )
    return any(different_bits(other, first).any() for other in others)


def _parts(count: int) -> Iterator[slice]:
    """The whole, and parts of several lengths at several places."""
    yield slice(0, count)
    start = 0
    for length in CALL_LENGTHS:
        yield slice(start, min(start + length, count))
        start = (start + length) % count


def different_bits(answer: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    """Where two arrays of one shape differ; -0.0 is not +0.0, and any NaN equals any other."""
    differs = answer != expected
    if np.issubdtype(expected.dtype, np.floating):
        missing = np.isnan(answer) & np.isnan(expected)
        differs = (differs & ~missing) | (np.signbit(answer) != np.signbit(expected)) & ~missing
    return np.asarray(differs)
