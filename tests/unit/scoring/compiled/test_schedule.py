"""The schedule: each step finds what it reads, and no place holds two values at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.scoring.bundle import REASONS_GRAPH, deciding_files
from creditrisk_assets.scoring.compiled import schedule as module
from creditrisk_assets.scoring.compiled.graph_file import read_graph
from creditrisk_assets.scoring.compiled.program import VALUE_FREE, Program
from creditrisk_assets.scoring.compiled.schedule import Schedule, place_bytes, schedule
from creditrisk_assets.scoring.compiled.tracer import trace
from tests.support.compiled import Compiled


def random_program(data: st.DataObject) -> Program:
    """A program in which each operation uses earlier ones, comparisons and powers among them."""
    program = Program()
    floats = [program.input(field) for field in range(3)]
    doubles = [program.argument(0), program.constant(np.float64(2))]
    truths = [program.apply("Missing", floats[0])]
    for _ in range(data.draw(st.integers(5, 60))):
        one, other = (data.draw(st.sampled_from(floats[-12:])) for _ in range(2))
        match data.draw(st.integers(0, 4)):
            case 0:
                floats.append(program.apply("Add", one, other))
            case 1:
                truths.append(program.apply("Less", one, other))
            case 2:
                floats.append(program.select(data.draw(st.sampled_from(truths)), one, other))
            case 3:
                doubles.append(program.cast(one, "double"))
            case 4:
                doubles.append(program.power(doubles[-1], data.draw(st.sampled_from(doubles))))
    program.outputs = {"default_probability": [doubles[-1]], "contributions": floats[-3:]}
    return program


def values_read(program: Program, number: int) -> set[int]:
    """The values that an operation reads. Truth values are computed again, so what they read counts in their place."""
    found = set()
    for operand in program.operations[number].operands:
        operation = program.operations[operand]
        if operation.type == "i1":
            found |= values_read(program, operand)
        elif operation.name not in ("argument", "constant"):
            found.add(operand)
    return found


def assert_valid(program: Program, plan: Schedule) -> None:
    held: dict[int, int] = {}  # the value in each byte of the buffer
    for number in plan.inputs:
        write(program, plan, number, held)
    computed = []
    for step in plan.steps:
        before = dict(held)
        inside: set[int] = set()
        for number in step:
            for value in values_read(program, number) - inside:
                assert before[plan.places[value]] == value
            inside.add(number)
            computed.append(number)
        for number in step:
            write(program, plan, number, held)
        for number in step:  # the step may load late what it reads: nothing of it is overwritten
            for value in values_read(program, number) - inside:
                assert held[plan.places[value]] == value
    for numbers in program.outputs.values():
        for number in numbers:
            if program.operations[number].name not in ("argument", "constant"):
                assert held[plan.places[number]] == number
    assert computed == [
        number
        for number in program.reachable()
        if program.operations[number].type != "i1"
        and program.operations[number].name not in VALUE_FREE
    ]


def write(program: Program, plan: Schedule, number: int, held: dict[int, int]) -> None:
    if number in plan.places:
        start, width = plan.places[number], place_bytes(program.type(number))
        assert start % width == 0 or start % 256 == 0
        assert start + width <= plan.size
        held.update(dict.fromkeys(range(start, start + width), number))


@given(data=st.data())
def test_any_program_is_cut_so_that_each_step_finds_what_it_reads(data: st.DataObject) -> None:
    program = random_program(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHORTEST_STEP", 2)
        patch.setattr(module, "LONGEST_STEP", 7)
        plan = schedule(program)
    assert_valid(program, plan)
    assert all(len(step) <= 7 for step in plan.steps)
    for step in plan.steps:
        assert len(step) == 1 or all(program.operations[one].name != "Pow" for one in step)


def test_the_steps_of_a_bundle_are_bounded_and_its_buffer_fits_a_cache(trees: Compiled) -> None:
    """A processor's first cache has 32 to 48 KiB, its second at least 512."""
    files = deciding_files(trees.bundle.location)
    reference = trees.bundle.manifest.rule.reference
    program = trace(read_graph(files[REASONS_GRAPH]), len(reference), reference)
    plan = schedule(program)
    assert_valid(program, plan)
    assert max(map(len, plan.steps)) <= module.LONGEST_STEP
    assert plan.size <= 128 * 1024
