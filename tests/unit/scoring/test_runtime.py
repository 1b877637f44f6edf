"""The runtime of decisions in bulk: chosen, compared with the graphs, and named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from creditrisk_assets.scoring.bundle import Bundle, DecisionRule
from creditrisk_assets.scoring.compiled.kernel import ExplainedDecisions, Kernel, Rows
from creditrisk_assets.scoring.runtime import (
    COMPARED_EVERY,
    WORTH_ROWS,
    DifferentDecisionError,
    Runtime,
)
from tests.support.examples import FloatMatrix


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "objects"


@pytest.fixture(scope="module")
def compiled(bundle: Bundle, cache: Path) -> Runtime:
    return Runtime.for_rows(bundle, bundle.manifest.rule, WORTH_ROWS, cache)


def test_a_long_file_is_decided_by_compiled_code_with_the_answers_of_the_graphs(
    bundle: Bundle, compiled: Runtime, raw: FloatMatrix
) -> None:
    decided, expected = compiled.decide(raw), bundle.decide(raw, bundle.manifest.rule)
    assert str(compiled) == "compiled code"
    for name in ("default_probability", "score", "prediction", "reasons"):
        assert np.array_equal(getattr(decided, name), getattr(expected, name)), name


def test_a_short_file_is_decided_before_code_would_be_compiled(
    bundle: Bundle, tmp_path: Path, raw: FloatMatrix
) -> None:
    runtime = Runtime.for_rows(bundle, bundle.manifest.rule, WORTH_ROWS - 1, tmp_path / "none")
    assert str(runtime) == "onnxruntime, since there are few rows"
    assert len(runtime.decide(raw[:3]).default_probability) == 3
    assert not (tmp_path / "none").exists()


def test_without_a_compiler_the_graphs_decide_and_it_is_said(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    runtime = Runtime.for_rows(bundle, bundle.manifest.rule, WORTH_ROWS, tmp_path / "cache")
    assert str(runtime).startswith("onnxruntime, since llvmlite cannot be imported")


def test_a_folder_of_code_that_others_may_write_is_not_used(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    runtime = Runtime.for_rows(bundle, bundle.manifest.rule, WORTH_ROWS, tmp_path / "cache")
    assert "without permissions for others" in str(runtime)


@pytest.mark.parametrize("wrong_row", [0, COMPARED_EVERY])
def test_a_compared_row_that_differs_in_its_last_bit_stops_everything(
    compiled: Runtime, raw: FloatMatrix, wrong_row: int
) -> None:
    class Wrong(Kernel):
        def decide(self, rows: Rows, rule: DecisionRule) -> ExplainedDecisions:
            found = super().decide(rows, rule)
            found.default_probability[wrong_row] = np.nextafter(
                found.default_probability[wrong_row], 1
            )
            return found

    assert compiled.kernel is not None
    runtime = Runtime(compiled.bundle, compiled.rule, Wrong(**vars(compiled.kernel)))
    rows = np.concatenate([raw, raw])[: COMPARED_EVERY + 1]
    with pytest.raises(DifferentDecisionError, match="differ in default_probability of the row"):
        runtime.decide(rows)
