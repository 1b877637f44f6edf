"""Segmentations of a portfolio: how each customer gets a segment.

A segmentation goes by an expression over fields, as a formula: `amount`, `balance / limit`,
`default_probability`. The expression is parsed, never evaluated as Python:
it may have names of fields, numbers, `+ - * /`, brackets, and `min(...)` and `max(...)`. Numbers
are cut at bands; a field with codes needs none, its segments are the meanings of its codes.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

DEFAULT_PROBABILITY = "default_probability"
"""Name of the PD in expressions, for score bands."""

MISSING = "missing"
"""Segment of the customers without a value."""

SEGMENTS_LIMIT = 100
"""Most segments of a portfolio: each costs a test of every field, and a line of the page."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {"min": np.minimum, "max": np.maximum}


class SegmentedField(Protocol):
    """Field of the contract, as far as segmentations need it."""

    @property
    def name(self) -> str:
        """The column."""

    @property
    def minimum(self) -> float | None:
        """The smallest valid number."""

    @property
    def maximum(self) -> float | None:
        """The largest valid number."""

    @property
    def codes(self) -> Mapping[Any, str] | None:
        """The meaning of each code."""

    @property
    def is_text(self) -> bool:
        """Whether the values are text codes."""

    @property
    def code_numbers(self) -> Mapping[Any, float]:
        """The number of each code."""


@dataclass(frozen=True)
class Segmentation:
    """Way of dividing the customers into segments.

    Attributes:
        name: short and stable, in lower case; files and pages name it.
        label: words for people.
        by: expression over fields, or the name of a field with codes.
        bands: ascending lower edges of all bands but the first; none for a field with codes.
        labels: names of the bands, one more than `bands`; by default their edges.

    Raises:
        ValueError: if the expression or the bands are not valid; the message names the part.
    """

    name: str
    label: str
    by: str
    bands: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._require(
            self.name.isidentifier() and self.name == self.name.lower(),
            f"name {self.name!r}; valid: lower case letters, digits and underscores",
        )
        self._require(self.label.strip(), f"label {self.label!r}; valid: words for people")
        self._require(
            list(self.bands) == sorted({*self.bands}) and np.isfinite(self.bands).all(),
            f"bands {self.bands}; valid: ascending numbers, each once",
        )
        self._require(
            not self.labels
            or (len(self.labels) == len(self.bands) + 1 and len({*self.labels}) > len(self.bands)),
            f"labels {self.labels} for bands {self.bands}; valid: none, or {len(self.bands) + 1} "
            "different ones",
        )
        self._require(MISSING not in self.labels, f"label {MISSING!r}; valid: another word")
        self._require(self.names, f"by {self.by!r}; valid: an expression that names a field")

    def _require(self, valid: object, message: str) -> None:
        if not valid:
            raise ValueError(f"segmentation {self.name}: {message}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that the expression names, in order, each once."""
        found = [node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)]
        return tuple(dict.fromkeys(name for name in found if name not in _FUNCTIONS))

    @property
    def is_by_score(self) -> bool:
        """Whether the segments depend on the PD, and so on the model."""
        return DEFAULT_PROBABILITY in self.names

    @property
    def definition(self) -> str:
        """Text that is the same for the same segments."""
        return f"{self.by} | {', '.join(f'{edge:g}' for edge in self.bands)}"

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            tree = ast.parse(self.by.strip(), mode="eval").body
        except SyntaxError:
            self._require(False, f"by {self.by!r} is no expression; valid: {_VALID}")
            raise
        self._require_known(tree)
        return tree

    def _require_known(self, node: ast.expr) -> None:
        match node:
            case ast.Name():
                return
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._require_known(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                self._require_known(left)
                self._require_known(right)
            case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as args, keywords=[]) if (
                name in _FUNCTIONS
            ):
                for argument in args:
                    self._require_known(argument)
            case _:
                self._require(False, f"{ast.unparse(node)!r} in by; valid: {_VALID}")

    def require_fits(self, fields: Sequence[SegmentedField]) -> None:
        """Check the segmentation against the fields of its portfolio.

        Raises:
            ValueError: if it names an unknown field, or a band that no valid value reaches.
        """
        by_name = {field.name: field for field in fields}
        unknown = [name for name in self.names if name not in {*by_name, DEFAULT_PROBABILITY}]
        self._require(
            not unknown,
            f"{', '.join(unknown)} is no field; valid: {', '.join(by_name)}, {DEFAULT_PROBABILITY}",
        )
        alone = by_name.get(self.by.strip())
        if not self.bands:
            self._require(
                alone is not None and alone.codes is not None,
                f"no bands for {self.by!r}; valid: at least one, or a field with codes",
            )
            return
        texts = [name for name in self.names if name in by_name and by_name[name].is_text]
        self._require(
            not texts, f"bands of {', '.join(texts)}, which has text codes; valid: no bands"
        )
        low, high = self._range(alone)
        empty = [edge for edge in self.bands if not low < edge <= high]
        self._require(
            not empty,
            f"a band ends or begins at {', '.join(f'{edge:g}' for edge in empty)} and no value "
            f"reaches it; valid: above {low:g} and up to {high:g}",
        )

    def _range(self, field: SegmentedField | None) -> tuple[float, float]:
        """The smallest and the largest valid value; unbounded for formulas."""
        if field is not None and field.codes is not None:
            return min(field.codes), max(field.codes)
        if field is not None and field.minimum is not None and field.maximum is not None:
            return field.minimum, field.maximum
        return (0.0, 1.0) if self.by.strip() == DEFAULT_PROBABILITY else (-np.inf, np.inf)

    def segments(self, fields: Sequence[SegmentedField]) -> tuple[str, ...]:
        """Names of the segments in order; the last is that of the missing values."""
        if self.bands:
            between = [f"{low:,g} to below {high:,g}" for low, high in pairwise(self.bands)]
            edges = [f"below {self.bands[0]:,g}", *between, f"{self.bands[-1]:,g} and over"]
            return (*(self.labels or edges), MISSING)
        codes = next(field.codes for field in fields if field.name == self.by.strip()) or {}
        return (*dict.fromkeys(codes.values()), MISSING)

    def places(
        self, columns: Mapping[str, NDArray[Any]], fields: Sequence[SegmentedField]
    ) -> IntArray:
        """Place of each customer among the segments.

        Args:
            columns: n values of each named column: numbers, text codes as their places in the
                contract, NaN where a value is missing.
            fields: of the portfolio.
        """
        values = np.asarray(self._value(self._tree, columns), dtype=np.float64)
        if self.bands:
            place = np.searchsorted(np.array(self.bands), values, side="right")
            return np.where(np.isnan(values), len(self.bands) + 1, place)
        field = next(field for field in fields if field.name == self.by.strip())
        names = self.segments(fields)
        meanings = field.codes or {}
        known = sorted((number, code) for code, number in field.code_numbers.items())
        numbers = np.array([number for number, _ in known])
        segments = np.array([names.index(meanings[code]) for _, code in known], dtype=np.int64)
        at = np.clip(np.searchsorted(numbers, values), 0, len(numbers) - 1)
        return np.where(numbers[at] == values, segments[at], len(names) - 1)

    def _value(self, node: ast.expr, columns: Mapping[str, NDArray[Any]]) -> Any:
        match node:
            case ast.Name(id=name):
                return np.asarray(columns[name], dtype=np.float64)
            case ast.Constant(value=number):
                return float(number)  # type: ignore[arg-type]  # checked when it was parsed
            case ast.UnaryOp(operand=operand):
                return -self._value(operand, columns)
            case ast.BinOp(left=left, op=op, right=right):
                with np.errstate(divide="ignore", invalid="ignore"):
                    return _OPERATORS[type(op)](
                        self._value(left, columns), self._value(right, columns)
                    )
            case ast.Call(func=ast.Name(id=name), args=arguments):
                values = [self._value(argument, columns) for argument in arguments]
                return reduce(_FUNCTIONS[name], values)
        raise AssertionError(f"{ast.dump(node)} was checked when it was parsed")


_VALID = "fields, numbers, + - * /, brackets, min(...) and max(...)"


def grade_bands(bounds: Sequence[float], name: str = "grade") -> Segmentation:
    """Score bands: the grades A, B, C and so on between PDs.

    Args:
        bounds: rising PDs, as the portfolio's `grade_bounds`.
        name: of the segmentation.
    """
    grades = tuple(chr(ord("A") + place) for place in range(len(bounds) + 1))
    return Segmentation(name, "grade", DEFAULT_PROBABILITY, tuple(bounds), grades)
