"""The job train: from the history to the first champion."""

import hashlib
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner
from upath import UPath

from creditrisk_assets.cli.main import app
from creditrisk_assets.governance.model_card import InventoryEntry
from creditrisk_assets.governance.verdict import Verdict
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.registry import Registry
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.simulation.card_customers import simulate
from tests.support.loop import Loop, checks
from tests.support.places import REPOSITORY
from tests.support.trained import trained_loop


def test_the_first_champion_says_who_it_is_and_why(trained: Loop) -> None:
    record = trained.champion()
    assert record.verdict == "first"
    assert record.mlflow_uri == f"models:/credit_default/{record.model_version}"
    assert trained.bundle().manifest.training.kind == "history"
    metadata = trained.metadata("champion")
    assert metadata["figures"]["challenger"]["roc_auc"] > 0.7
    assert metadata["roc"].startswith("![plot](data:image/png;base64,")


def test_the_mlflow_alias_names_the_champion(trained: Loop) -> None:
    registry = Registry(trained.settings)
    assert registry.champion_bundle() == trained.champion().bundle_sha256


def test_the_run_in_mlflow_holds_parameters_metrics_and_plots(trained: Loop) -> None:
    client = mlflow.MlflowClient(trained.settings.tracking_uri, trained.settings.tracking_uri)
    run = client.get_run(trained.metadata("model")["mlflow_run_id"])
    assert float(run.data.metrics["roc_auc"]) == trained.metadata("model")["figures"]["roc_auc"]
    assert run.data.params["kind"] == "history"
    assert {file.path for file in client.list_artifacts(run.info.run_id, "plots")} == {
        f"plots/{name}.png"
        for name in (
            "roc",
            "calibration",
            "ks",
            "score_distribution",
            "importance",
            "monotone_profiles",
        )
    }


def test_the_run_in_mlflow_names_its_data_without_a_copy(trained: Loop) -> None:
    """Two runs of the same rows have the same digest, and MLflow's list can be filtered by it."""
    client = mlflow.MlflowClient(trained.settings.tracking_uri, trained.settings.tracking_uri)
    run_id = trained.metadata("model")["mlflow_run_id"]
    logged = client.get_run(run_id).inputs
    assert logged is not None
    inputs = {one.tags[0].value: one.dataset for one in logged.dataset_inputs}
    assert list(inputs) == ["training", "evaluation"]
    manifest = trained.bundle().manifest
    fit, held_out = inputs["training"], inputs["evaluation"]
    assert (fit.name, fit.digest) == (
        "uci_card training rows",
        manifest.training.fingerprint[:36],
    )
    assert json.loads(str(fit.source))["tags"]["sha256"] == manifest.training.fingerprint
    assert json.loads(str(fit.profile)) == {
        "num_rows": manifest.training.rows,
        "num_bads": manifest.training.bads,
    }
    assert json.loads(str(held_out.profile))["num_rows"] == manifest.metrics["rows"]
    columns = json.loads(str(fit.schema))["mlflow_colspec"]
    assert [one["name"] for one in columns] == [*PORTFOLIO.field_names, PORTFOLIO.target]
    assert {one["type"] for one in columns} == {"long"}
    assert not [file.path for file in client.list_artifacts(run_id) if "data" in file.path]


def _artifact(loop: Loop, run_id: str, path: str, folder: Path) -> str:
    client = mlflow.MlflowClient(loop.settings.tracking_uri, loop.settings.tracking_uri)
    return Path(client.download_artifacts(run_id, path, str(folder))).read_text()


def test_every_version_has_a_model_card_and_an_inventory_entry(
    trained: Loop, tmp_path: Path
) -> None:
    run_id, version = trained.metadata("model")["mlflow_run_id"], trained.champion().model_version
    card = _artifact(trained, run_id, "model_card.md", tmp_path)
    assert card.startswith(f"# Model card: credit_default, version {version}\n")
    assert "| score_distribution_is_stable |" in card
    assert "| history_satisfies_contract |" in card
    assert all(limit in card for limit in PORTFOLIO.limits)
    assert trained.champion().bundle_sha256 in _artifact(
        trained, run_id, "model_card.html", tmp_path
    )
    entry = InventoryEntry.model_validate_json(
        _artifact(trained, run_id, "inventory.json", tmp_path)
    )
    assert (entry.version, entry.kind_of_change) == (version, "first")


def test_the_verdict_is_a_document_in_mlflow_and_the_asset_names_its_digest(
    trained: Loop, tmp_path: Path
) -> None:
    metadata = trained.metadata("champion")
    digest = metadata["verdict_sha256"]
    folder = f"verdicts/{digest[:16]}"
    text = _artifact(
        trained, trained.metadata("model")["mlflow_run_id"], f"{folder}/verdict.json", tmp_path
    )
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    verdict = Verdict.model_validate_json(text)
    assert (verdict.verdict, verdict.reason) == ("first", metadata["reason"])
    assert metadata["verdict_document"] == verdict.model_dump(mode="json")
    assert metadata["verdict_page"].endswith(f"{folder}/verdict.html")
    assert "the first champion" in _artifact(
        trained, trained.metadata("model")["mlflow_run_id"], f"{folder}/verdict.html", tmp_path
    )


def test_the_fairness_command_reads_the_champion_and_names_small_groups(
    trained: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "customers.csv"
    simulate(2_000, 91).to_csv(path, index=False)
    result = CliRunner().invoke(app, ["fairness", "--data", str(path), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bundle_sha256"] == trained.champion().bundle_sha256
    assert [field["field"] for field in report["fields"]] == list(PORTFOLIO.protected)
    assert all(
        sum(group["n"] for group in field["groups"]) == report["rows"] for field in report["fields"]
    )
    assert {group["judged"] for field in report["fields"] for group in field["groups"]} == {
        True,
        False,
    }
    assert report["proxy_rows"] == 2_000
    missing = CliRunner().invoke(app, ["fairness", "--data", str(tmp_path / "nowhere.csv")])
    assert missing.exit_code == 1


def test_the_run_in_mlflow_says_what_was_chosen_and_where_it_came_from(trained: Loop) -> None:
    """Half a year later these are all that is known of the training."""
    client = mlflow.MlflowClient(trained.settings.tracking_uri, trained.settings.tracking_uri)
    metadata = trained.metadata("model")
    run = client.get_run(metadata["mlflow_run_id"])
    training = trained.bundle().manifest.training
    assert run.data.params["family"] == training.family == metadata["family"]
    for name in training.parameters:
        assert float(run.data.params[name]) == training.parameters[name]
    for candidate, figures in training.candidates.items():
        assert run.data.metrics[f"selection/{candidate}/log_loss"] == pytest.approx(
            figures["log_loss"]
        )
    for figure in (
        "gini",
        "ks",
        "brier",
        "log_loss",
        "ece",
        "calibration_in_the_large",
        "calibration_slope",
        "average_precision",
    ):
        low, value, high = (run.data.metrics[f"{figure}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high
    assert run.data.tags["training_fingerprint"] == training.fingerprint
    assert run.data.tags["dagster_run_id"]
    lock = hashlib.sha256((REPOSITORY / "requirements.lock").read_bytes()).hexdigest()
    assert run.data.tags["requirements_lock_sha256"] == lock


def test_the_input_example_is_a_request_that_mlflow_answers_like_the_bundle(trained: Loop) -> None:
    registry = Registry(trained.settings)
    run_id = registry.version(trained.champion().model_version).record.run_id
    trained.mlflow_model("models:/credit_default@champion")  # sets the store
    example = mlflow.artifacts.load_dict(f"runs:/{run_id}/input_example.json")["dataframe_split"]
    frame = pd.DataFrame(example["data"], columns=example["columns"]).astype("float64")
    answer = trained.mlflow_model("models:/credit_default@champion").predict(frame)
    bundle = trained.bundle()
    expected = bundle.score(bundle.raw(pd.DataFrame([PORTFOLIO.example])))
    assert np.array_equal(answer["default_probability"], expected.default_probability)


def test_beside_trees_stands_a_scorecard_of_the_same_rows_to_fall_back_on(trained: Loop) -> None:
    record = trained.champion()
    model = trained.bundle().manifest
    if model.training.family == "scorecard":
        assert record.fallback is None
        return
    assert record.fallback is not None
    fallback = BundleStore(trained.settings.data_dir).load(record.fallback.bundle_sha256).manifest
    assert fallback.training.family == "scorecard"
    assert fallback.training.fingerprint == model.training.fingerprint
    assert (
        trained.metadata("model")["figures"]["fallback_roc_auc"]
        == fallback.metrics["roc_auc"]
        > 0.65
    )


def test_no_protected_field_is_a_feature(trained: Loop) -> None:
    manifest = trained.bundle().manifest
    assert manifest.protected == ["sex", "education", "marriage", "age"]
    assert not set(manifest.protected) & set(manifest.features)


def test_any_mlflow_client_gets_the_same_bits(trained: Loop) -> None:
    """MLflow's own loader must not round, reorder or use threads of its own."""
    bundle = trained.bundle()
    rows = simulate(1_000, 77)[PORTFOLIO.field_names]
    loaded = trained.mlflow_model("models:/credit_default@champion")
    answers = loaded.predict(rows.astype("float64"))
    expected = bundle.score(rows.to_numpy(dtype=np.float32))
    assert np.array_equal(answers["default_probability"], expected.default_probability)
    assert np.array_equal(answers["score"], expected.score)


def test_training_again_on_the_same_history_gives_no_second_version(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The bundle hash is over what decides, so nothing new is registered and the champion stays."""
    loop = trained_loop(tmp_path / "site", tmp_path_factory)
    first = loop.champion()
    assert loop.run("train").success
    second = loop.champion()
    assert second.verdict == "unchanged"
    assert (second.model_version, second.bundle_sha256) == (
        first.model_version,
        first.bundle_sha256,
    )
    assert loop.metadata("model")["new_version"] is False
    loop.close()


def test_a_history_file_with_published_column_names_is_read(tmp_path: Path) -> None:
    history = simulate(3_000, 5)
    history.columns = [
        "default.payment.next.month" if name == PORTFOLIO.target else name.upper()
        for name in history.columns
    ]
    path = tmp_path / "history.csv"
    history.to_csv(path, index=False)
    loop = Loop.of(tmp_path / "site", raw_data=str(path))
    assert loop.run("train").success
    assert loop.metadata("raw_data")["source"] == "file history.csv"
    loop.close()


def test_a_history_that_breaks_the_contract_trains_nothing_and_names_the_cell(
    tmp_path: Path,
) -> None:
    history = simulate(2_000, 5).astype({"pay_0": "object"})
    history.loc[17, "pay_0"] = "late"
    path = tmp_path / "history.csv"
    history.to_csv(path, index=False)
    loop = Loop.of(tmp_path / "site", raw_data=str(path))
    result = loop.run("train")
    assert not result.success
    evaluation = checks(result)["history_satisfies_contract"]
    assert not evaluation.passed
    assert "pay_0: 'late' is not a number; valid: one of -2, -1, 0" in str(
        evaluation.metadata["first_problems"].value
    )
    assert not result.get_asset_materialization_events() or {
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key
    } == {"raw_data"}
    loop.close()


def test_a_history_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    loop = Loop.of(tmp_path / "site", raw_data=str(tmp_path / "nowhere.csv"))
    result = loop.run("train")
    failure = result.failure_data_for_node("raw_data")
    assert failure is not None
    assert "nowhere.csv' is no file; valid: a CSV or Parquet file" in str(failure.error)
    loop.close()


def test_the_reference_and_the_held_out_rows_come_with_the_bundle(trained: Loop) -> None:
    trained.champion()
    folder = UPath(trained.bundle().location) / "extra_files"
    reference, held_out = (
        pd.read_parquet(io.BytesIO((folder / f"{name}.parquet").read_bytes()))
        for name in ("reference", "held_out")
    )
    assert {"score", "default_probability", *PORTFOLIO.field_names} == set(reference.columns)
    assert {PORTFOLIO.target, *PORTFOLIO.field_names} == set(held_out.columns)
    assert len(held_out) == trained.metadata("features")["held out, rows"]
