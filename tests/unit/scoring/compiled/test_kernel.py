"""The kernel: the answers of the bundle in all bits, however the rows come."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from creditrisk_assets.modelling.bundling import write_bundle
from creditrisk_assets.modelling.decision_graph import Graphs, recalibrate_graph
from creditrisk_assets.scoring.bundle import (
    GRAPH,
    REASONS_GRAPH,
    Bundle,
    Calibration,
    DecisionRule,
    deciding_files,
)
from creditrisk_assets.scoring.compiled import kernel as kernel_module
from creditrisk_assets.scoring.compiled.errors import KernelError
from creditrisk_assets.scoring.compiled.kernel import Kernel, compile_kernel
from creditrisk_assets.scoring.compiled.proof import ODD_VALUES, edges, load_kernel
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.compiled import Compiled, assert_equal_bits
from tests.support.examples import FloatMatrix, raw_matrix, written_bundle


def assert_equal_answers(kernel: Kernel, bundle: Bundle, rows: FloatMatrix) -> None:
    """Scores, decisions and contributions are those of the bundle."""
    rule = bundle.manifest.rule
    scores, right = kernel.score(rows), bundle.score(rows)
    decisions, explained = bundle.decide(rows, rule), kernel.decide(rows, rule)
    for answer, expected in ((scores, right), (explained, decisions)):
        assert_equal_bits(answer.default_probability, expected.default_probability)
        assert_equal_bits(answer.score, expected.score)
        assert_equal_bits(answer.prediction, expected.prediction)
    assert_equal_bits(explained.reasons, decisions.reasons)
    reference = np.array([rule.reference], dtype=np.float32)
    (contributions,) = bundle.reasons_session.run(
        ["contributions"], {"raw": rows, "reference": reference}
    )
    assert_equal_bits(explained.contributions, contributions)


def test_the_answers_are_those_of_the_bundle(compiled: Compiled) -> None:
    assert_equal_answers(compiled.kernel, compiled.bundle, compiled.rows)


def test_missing_values_are_answered_alike(compiled: Compiled) -> None:
    rng = np.random.default_rng(1)
    for share in (0.1, 0.6, 1.0):
        rows = compiled.rows[:500].copy()
        rows[rng.random(rows.shape) < share] = np.nan
        assert_equal_answers(compiled.kernel, compiled.bundle, rows)


def test_simulated_customers_of_another_seed_are_answered_alike(champion: Compiled) -> None:
    assert_equal_answers(champion.kernel, champion.bundle, raw_matrix(simulate(4_000, 11)))


@given(data=st.data())
def test_any_numbers_at_all_are_answered_alike(trees: Compiled, data: st.DataObject) -> None:
    """Thresholds and the numbers next to them, zeros of both signs, infinite and subnormal numbers: these features are the
    fields themselves, so none of them is a sum.
    """
    anything = st.floats(width=32, allow_nan=True, allow_subnormal=True)
    fields = trees.bundle.manifest.inputs
    columns = []
    for field, thresholds in zip(fields, trees.kernel.thresholds, strict=True):
        near = st.sampled_from([*edges(field, thresholds).tolist(), *ODD_VALUES.tolist()])
        columns.append(
            data.draw(arrays.arrays(np.float32, 20, elements=st.one_of(near, near, anything)))
        )
    assert_equal_answers(trees.kernel, trees.bundle, np.column_stack(columns))


def test_the_thresholds_of_the_fields_are_those_of_the_trees(trees: Compiled) -> None:
    assert all(trees.kernel.thresholds)
    assert any(0 < value < 1_000 for value in trees.kernel.thresholds[2])


def test_no_bit_depends_on_the_number_of_rows_or_on_their_place(compiled: Compiled) -> None:
    kernel, rule = compiled.kernel, compiled.bundle.manifest.rule
    rows = compiled.rows[:400]
    whole = kernel.decide(rows, rule)
    for count in range(1, 131):
        part = slice(count, 2 * count)
        answer = kernel.decide(rows[part], rule)
        assert_equal_bits(kernel.score(rows[part]).score, whole.score[part])
        assert_equal_bits(answer.default_probability, whole.default_probability[part])
        assert_equal_bits(answer.contributions, whole.contributions[part])
        assert_equal_bits(answer.reasons, whole.reasons[part])


def test_calls_of_several_threads_do_not_disturb_each_other(compiled: Compiled) -> None:
    rule = compiled.bundle.manifest.rule
    whole = compiled.kernel.decide(compiled.rows, rule)
    parts = [slice(start, start + 333) for start in range(0, len(compiled.rows), 37)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda part: compiled.kernel.decide(compiled.rows[part], rule), parts)
    for part, answer in zip(parts, answers, strict=True):
        assert_equal_bits(answer.score, whole.score[part])
        assert_equal_bits(answer.contributions, whole.contributions[part])


def test_no_rows_give_no_answers(compiled: Compiled) -> None:
    answer = compiled.kernel.decide(compiled.rows[:0], compiled.bundle.manifest.rule)
    assert answer.score.shape == answer.prediction.shape == (0,)
    assert answer.contributions.shape == (0, len(compiled.bundle.manifest.reasons))
    columns = list(compiled.rows[:0].T.astype(np.float64))
    assert compiled.kernel.score(columns).score.shape == (0,)


def test_a_matrix_may_have_any_layout(compiled: Compiled) -> None:
    rows = compiled.rows[:200]
    whole = compiled.kernel.score(rows).score
    wide = np.zeros((200, rows.shape[1] + 3), dtype=np.float32)
    wide[:, 1:-2] = rows
    assert_equal_bits(compiled.kernel.score(np.asfortranarray(rows)).score, whole)
    assert_equal_bits(compiled.kernel.score(wide[:, 1:-2]).score, whole)
    assert_equal_bits(compiled.kernel.score(rows[::-1]).score, whole[::-1].copy())
    assert_equal_bits(compiled.kernel.score(rows[::3]).score, whole[::3].copy())


@pytest.mark.parametrize("count", [1, 15, 16, 17, 63, 64, 65, 130, 1_000])
def test_columns_are_scored_as_the_matrix_of_them(compiled: Compiled, count: int) -> None:
    rule = compiled.bundle.manifest.rule
    kinds = (np.float64, np.float32, np.int64)
    rows = np.nan_to_num(compiled.rows[:count], nan=7.0)
    columns = [column.astype(kinds[place % 3]) for place, column in enumerate(rows.T)]
    answer, expected = (
        compiled.kernel.decide(columns, rule),
        compiled.kernel.decide(rows, rule),
    )
    assert_equal_bits(answer.score, expected.score)
    assert_equal_bits(answer.contributions, expected.contributions)
    assert_equal_bits(answer.reasons, expected.reasons)
    scores = compiled.kernel.score(columns)
    assert_equal_bits(scores.default_probability, expected.default_probability)


def test_columns_of_arrow_are_scored_where_they_are(champion: Compiled) -> None:
    table = pa.table(
        {
            name: pa.array(column.astype(np.int64 if place % 2 else np.float64))
            for place, (name, column) in enumerate(
                zip(champion.bundle.input_names, champion.rows.T, strict=True)
            )
        }
    ).slice(5, 150)
    columns = [column.chunk(0).to_numpy(zero_copy_only=True) for column in table.columns]
    assert_equal_bits(
        champion.kernel.score(columns).score, champion.kernel.score(champion.rows[5:155]).score
    )


@given(
    wholes=arrays.arrays(np.int64, 19, elements=st.integers(-(2**63), 2**63 - 1)),
    fractions=arrays.arrays(np.float64, 19, elements=st.floats(allow_nan=False)),
)
def test_numbers_of_columns_are_rounded_as_numpy_rounds_them(
    one_column: Compiled, wholes: np.ndarray, fractions: np.ndarray
) -> None:
    """The score of this bundle is a line through its first field."""
    for column in (wholes, fractions):
        others = [np.zeros(len(column)) for _ in one_column.bundle.input_names[1:]]
        with np.errstate(over="ignore"):
            rows = np.column_stack([column, *others]).astype(np.float32)
            rows[:, 0] = column.astype(np.float32)
        assert_equal_bits(
            one_column.kernel.score([column, *others]).score, one_column.kernel.score(rows).score
        )


@pytest.fixture(scope="session")
def one_column(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A bundle whose log-odds are its first field."""
    rows = raw_matrix(simulate(10, 1))
    folder = tmp_path_factory.mktemp("one") / "bundle"
    bundle = written_bundle(folder, 0, simulate(10, 1)).load()
    return Compiled(bundle, compile_kernel(bundle, bundle.manifest.rule), rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda columns: columns[:-1], "rows have 22 columns; valid: 23"),
        (lambda columns: [columns[0][:5], *columns[1:]], r"column 1 is \(10,\) of float64"),
        (lambda columns: [columns[0].astype(np.int32), *columns[1:]], "of int32; valid"),
        (lambda columns: [np.repeat(columns[0], 2)[::2], *columns[1:]], "contiguous"),
    ],
)
def test_other_columns_are_refused(champion: Compiled, change: object, message: str) -> None:
    columns = [column.copy() for column in champion.rows[:10].T.astype(np.float64)]
    with pytest.raises(ValueError, match=message):
        champion.kernel.score(change(columns))  # type: ignore[operator]


def test_another_matrix_is_refused(champion: Compiled) -> None:
    with pytest.raises(ValueError, match=r"rows are \(3, 22\) of float32; valid: \(n, 23\)"):
        champion.kernel.score(champion.rows[:3, :-1])
    with pytest.raises(ValueError, match="float64"):
        champion.kernel.score(champion.rows.astype(np.float64))


def test_the_cut_off_is_an_argument(champion: Compiled) -> None:
    rule = champion.bundle.manifest.rule.model_copy(update={"cut_off": 0.1})
    for answer, expected in (
        (champion.kernel.score(champion.rows, 0.1), champion.bundle.score(champion.rows, 0.1)),
        (champion.kernel.decide(champion.rows, rule), champion.bundle.decide(champion.rows, rule)),
    ):
        assert_equal_bits(answer.prediction, expected.prediction)
        assert 0 < answer.prediction.mean() < 1


def test_another_reference_profile_is_refused(champion: Compiled) -> None:
    reference = [*champion.bundle.manifest.rule.reference[:-1], 123.0]
    with pytest.raises(KernelError, match="reference is another"):
        champion.kernel.decide(champion.rows, DecisionRule(cut_off=0.2, reference=reference))


def test_another_reference_profile_can_be_compiled(scorecard: Compiled) -> None:
    bundle = scorecard.bundle
    reference = [float(place * 100) for place in range(9)]
    rule = DecisionRule(cut_off=0.4, reference=reference)
    answer = load_kernel(bundle, rule).decide(scorecard.rows, rule)
    assert_equal_bits(answer.reasons, bundle.decide(scorecard.rows, rule).reasons)


def test_a_recalibrated_bundle_compiles_nothing(
    champion: Compiled, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = deciding_files(champion.bundle.location)
    calibration = Calibration(slope=0.8, intercept=-0.2)
    recalibrated = write_bundle(
        tmp_path,
        Graphs(*(recalibrate_graph(files[name], calibration) for name in (GRAPH, REASONS_GRAPH))),
        champion.bundle.manifest.model_copy(update={"calibration": calibration}),
        (champion.rows, champion.bundle.score(champion.rows).default_probability),
        {},
    )
    objects = sorted(cache.iterdir())

    def refuse(_: str) -> bytes:
        pytest.fail("compiled again")

    monkeypatch.setattr(kernel_module, "compile_text", refuse)
    kernel = load_kernel(recalibrated, cache=cache)
    assert sorted(cache.iterdir()) == objects
    assert_equal_answers(kernel, recalibrated, champion.rows)
    assert (kernel.score(champion.rows).score != champion.kernel.score(champion.rows).score).all()


def test_a_graph_with_other_outputs_is_refused(
    champion: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = deciding_files(champion.bundle.location)
    exchanged = files | {REASONS_GRAPH: files[GRAPH]}
    monkeypatch.setattr(kernel_module, "deciding_files", lambda *_: exchanged)
    with pytest.raises(KernelError, match=r"outputs are .* valid: .*'contributions', 'reasons'"):
        compile_kernel(champion.bundle, champion.bundle.manifest.rule)


def test_a_bundle_whose_files_have_changed_is_refused(champion: Compiled, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(champion.bundle.location, tmp_path / "bundle"))
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes() + b"\0")
    changed = replace(champion.bundle, location=str(folder))
    with pytest.raises(RuntimeError, match="has SHA-256"):
        compile_kernel(changed, champion.bundle.manifest.rule)
