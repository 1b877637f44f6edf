"""Order and memory of a program: steps that become functions, and places for what crosses them.

A compiler's time grows faster than the length of a function, so a program is cut into steps of
bounded length, where few values cross the cut. Values of a block of rows that cross one have a
place in a buffer. Truth values never do: each step compares again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from creditrisk_assets.scoring.compiled.program import TYPES, VALUE_FREE, Program

BLOCK_ROWS = 64
"""Rows in the buffer; 128 are not faster, 256 are slower (too large for the first cache)."""

SHORTEST_STEP, LONGEST_STEP = 20, 120
"""Operations of a step, comparisons not counted."""

LENGTH_COST = 1 / 16
"""Cost of an operation in a step, in values that cross its end. Long steps need more values than a
processor has registers: with it, a step is one tree (in steps of ten trees the code is half as
fast).
"""

BY_ROW = "Pow"
"""Operation of the C library: a step of its own, row by row."""


@dataclass(frozen=True)
class Schedule:
    """Schedule of a program.

    Attributes:
        inputs: operations of the inputs that are needed.
        steps: numbers of the operations of each step; truth values and constants are left out.
        places: byte at which the values of an operation start in the buffer.
        size: bytes of the buffer.
    """

    inputs: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    places: dict[int, int]
    size: int


def schedule(program: Program) -> Schedule:
    """Cut a program into steps and give places to the values that cross from one to another."""
    operations = program.operations
    needed = program.reachable()
    inputs = tuple(number for number in needed if operations[number].name == "input")
    computed = [
        number
        for number in needed
        if operations[number].type != "i1" and operations[number].name not in VALUE_FREE
    ]
    reads = _reads(program)
    last_position = dict.fromkeys(inputs, -1)
    for position, number in enumerate(computed):
        last_position[number] = position
        for operand in reads(number):
            last_position[operand] = position
    for numbers in program.outputs.values():
        for number in numbers:
            last_position[number] = len(computed)
    steps = tuple(_cut(program, computed, last_position))
    step_of = {number: place for place, step in enumerate(steps) for number in step}
    position_steps = [step_of[number] for number in computed] + [len(steps)]
    last_step = {number: position_steps[at] for number, at in last_position.items() if at >= 0}
    places, size = _places(program, inputs, steps, last_step)
    return Schedule(inputs, steps, places, size)


def _reads(program: Program) -> Callable[[int], frozenset[int]]:
    """Function from an operation to the inputs and computed values that it reads, also through
    truth values.
    """

    @cache
    def through(number: int) -> frozenset[int]:
        operation = program.operations[number]
        if operation.name in ("argument", "constant"):
            return frozenset()
        if operation.type != "i1":
            return frozenset((number,))
        return frozenset().union(*map(through, operation.operands))

    return lambda number: frozenset().union(*map(through, program.operations[number].operands))


def _cut(
    program: Program, computed: list[int], last_position: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Cut where the fewest values cross."""
    ends: list[int] = [0] * (len(computed) + 2)
    crossing, crossings = 0, []
    for position, number in enumerate(computed):
        crossings.append(crossing)
        ends[last_position[number] + 1] += 1
        crossing += 1 - ends[position + 1]
    start = 0
    while start < len(computed):
        stop = min(start + LONGEST_STEP, len(computed))
        candidates = range(min(start + SHORTEST_STEP, stop), stop + 1)
        if stop < len(computed):
            costs = {at: crossings[at] + LENGTH_COST * (at - start) for at in candidates}
            stop = min(candidates, key=costs.__getitem__)
        for position in range(start, stop):
            if program.operations[computed[position]].name == BY_ROW:
                stop = position if position > start else position + 1
                break
        yield tuple(computed[start:stop])
        start = stop


def _places(
    program: Program,
    inputs: tuple[int, ...],
    steps: tuple[tuple[int, ...], ...],
    last_step: dict[int, int],
) -> tuple[dict[int, int], int]:
    """Places of values that outlive their step. A place is free again in the step after the last
    that reads it.
    """
    places: dict[int, int] = {}
    free: dict[int, list[int]] = {}
    ending: dict[int, list[int]] = {}
    size = 0
    for step, numbers in enumerate((inputs, *steps), start=-1):
        for number in ending.pop(step - 1, ()):
            free.setdefault(place_bytes(program.type(number)), []).append(places[number])
        for number in numbers:
            last = last_step.get(number, -1)
            if last > step:
                width = place_bytes(program.type(number))
                if not free.get(width):
                    free.setdefault(width, []).append(size)
                    size += width
                places[number] = free[width].pop()
                ending.setdefault(last, []).append(number)
    return places, size


def place_bytes(kind: str) -> int:
    """Bytes of a block's values."""
    return BLOCK_ROWS * TYPES[kind].itemsize
