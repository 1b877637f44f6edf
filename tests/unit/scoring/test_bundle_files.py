"""A bundle read back: it gives the same bits for ever, and anything changed in it is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.scoring.bundle import (
    DECIDING,
    GOLDEN,
    GRAPH,
    HELD_OUT,
    MANIFEST,
    REFERENCE,
    Bundle,
    BundleError,
    DecisionRule,
    load_bundle,
)
from tests.support.examples import FloatMatrix


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """The bundle's files, to be damaged."""
    return Path(shutil.copytree(bundle.location, tmp_path / "bundle"))


def test_a_bundle_read_back_decides_as_the_one_that_was_made(
    bundle: Bundle, copy: Path, raw: FloatMatrix
) -> None:
    again = load_bundle(str(copy), bundle.sha256)
    assert again.sha256 == bundle.sha256
    assert again.manifest == bundle.manifest
    assert np.array_equal(
        again.score(raw).default_probability, bundle.score(raw).default_probability
    )


def test_a_bundle_is_read_from_an_address_as_from_a_path(bundle: Bundle, copy: Path) -> None:
    """MLflow gives `file:///...` or `s3://...`."""
    assert load_bundle(copy.as_uri(), bundle.sha256).sha256 == bundle.sha256


@given(st.data())
def test_one_changed_byte_anywhere_in_what_decides_is_refused(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("changed") / "bundle"
    shutil.copytree(bundle.location, directory)
    path = directory / data.draw(st.sampled_from(DECIDING))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(BundleError, match="has SHA-256"):
        load_bundle(str(directory), bundle.sha256)


def test_another_hash_than_the_champion_record_names_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=f"has SHA-256 {bundle.sha256}; valid: {'0' * 64}"):
        load_bundle(bundle.location, "0" * 64)


@pytest.mark.parametrize("name", DECIDING)
def test_a_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=Path(name).name):
        load_bundle(str(copy))


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        load_bundle(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("answer", ["default_probability", "score"])
def test_a_golden_answer_that_differs_in_its_last_bit_is_refused(copy: Path, answer: str) -> None:
    """Without any hash: the graph, the runtime or the processor is then not the one that the bundle was proven with."""
    golden = json.loads((copy / GOLDEN).read_text())
    golden[7][answer] = float(np.nextafter(golden[7][answer], np.inf))
    (copy / GOLDEN).write_text(json.dumps(golden))
    with pytest.raises(BundleError, match=r"golden request 7 of .* valid: exactly"):
        load_bundle(str(copy))


def test_a_graph_with_a_leaf_that_is_a_little_off_fails_its_golden_answers(copy: Path) -> None:
    """Also without any hash."""
    model = onnx.load_model_from_string((copy / GRAPH).read_bytes())
    (trees,) = [node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor"]
    (base,) = [attribute for attribute in trees.attribute if attribute.name == "base_values"]
    base.floats[0] += 1e-6
    (copy / GRAPH).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="golden request"):
        load_bundle(str(copy))


@pytest.mark.parametrize("name", DECIDING)
def test_a_file_that_cannot_be_parsed_is_refused_as_a_bundle_also_without_an_expected_hash(
    copy: Path, name: str
) -> None:
    """Callers catch only `BundleError`; another exception would end the process."""
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError):
        load_bundle(str(copy))


def test_what_only_documents_is_not_part_of_the_hash(bundle: Bundle, copy: Path) -> None:
    """A better model card must not look like another model."""
    (copy / REFERENCE).unlink()
    (copy / HELD_OUT).write_bytes(b"")
    (copy / "model_card.md").write_text("new")
    assert load_bundle(str(copy)).sha256 == bundle.sha256


def test_the_hash_tells_which_file_holds_what(bundle: Bundle, copy: Path) -> None:
    manifest, golden = (copy / MANIFEST).read_bytes(), (copy / GOLDEN).read_bytes()
    (copy / MANIFEST).write_bytes(golden)
    (copy / GOLDEN).write_bytes(manifest)
    with pytest.raises(BundleError, match="has SHA-256"):
        load_bundle(str(copy), bundle.sha256)


@given(st.lists(st.integers(0, 400), max_size=8))
def test_a_row_has_the_same_bits_in_any_batch(
    bundle: Bundle, raw: FloatMatrix, cuts: list[int]
) -> None:
    """Online equals batch: seen, two threads or a vectorised `exp` changed the last bit by batch size."""
    rows = raw[:401]
    rule = bundle.manifest.rule
    together, scores = bundle.decide(rows, rule), bundle.score(rows)
    parts = [bundle.decide(part, rule) for part in np.split(rows, sorted(set(cuts) - {0}))]
    for name in ("default_probability", "score"):
        assert np.array_equal(getattr(scores, name), getattr(together, name))
    for name in ("default_probability", "score", "prediction", "reasons"):
        assert np.array_equal(
            np.concatenate([getattr(part, name) for part in parts]), getattr(together, name)
        )


def test_a_row_has_the_same_bits_alone(bundle: Bundle, raw: FloatMatrix) -> None:
    together = bundle.score(raw)
    alone = [bundle.score(raw[row : row + 1]) for row in range(len(raw))]
    assert np.array_equal(
        np.concatenate([one.default_probability for one in alone]), together.default_probability
    )
    assert np.array_equal(np.concatenate([one.score for one in alone]), together.score)


def test_a_pd_at_the_cut_off_is_predicted_bad(bundle: Bundle, raw: FloatMatrix) -> None:
    probability = np.sort(bundle.score(raw).default_probability)
    at = float(probability[700])
    scores = bundle.decide(raw, DecisionRule(cut_off=at, reference=bundle.manifest.rule.reference))
    assert np.array_equal(scores.prediction == 1, scores.default_probability >= at)
    assert scores.prediction[scores.default_probability == at].tolist() == [1] * int(
        (probability == at).sum()
    )


def test_no_rows_are_no_answers(bundle: Bundle, raw: FloatMatrix) -> None:
    decisions = bundle.decide(raw[:0], bundle.manifest.rule)
    assert (
        len(decisions.default_probability),
        len(decisions.score),
        len(decisions.prediction),
    ) == (0, 0, 0)
    assert bundle.reason_codes(decisions) == []
