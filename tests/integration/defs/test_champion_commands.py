"""Moving the champion: every move is in the ledger, one at a time, whole, and whatever does not agree is found."""

import datetime
import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import mlflow
import pandas as pd
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from typer.testing import CliRunner, Result

from creditrisk_assets.cli.main import app
from creditrisk_assets.decisions.sets import scorings_of, sets_of
from creditrisk_assets.definitions import build_definitions
from creditrisk_assets.defs import champion_commands, champion_records, event_log
from creditrisk_assets.defs.sensors import retrain_on_drift
from creditrisk_assets.governance.ledger import Entry, Ledger
from creditrisk_assets.policy import Policy
from creditrisk_assets.portfolio.sampling import is_held_out
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.storage import is_local
from tests.support.copied_process import CopiedProcess
from tests.support.loop import Loop, api, checks, customers
from tests.support.places import REPOSITORY
from tests.support.trained import history, poorly_trained_loop, train
from tests.support.waiting import until


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A loop with two champions so far; the tests move it on, each from wherever it is, and leave it whole."""
    loop = poorly_trained_loop(tmp_path_factory.mktemp("moved") / "site", tmp_path_factory)
    train(loop, poor=False)
    assert loop.champion().verdict == "promoted", loop.champion().reason
    yield loop
    loop.close()


def command(loop: Loop, *arguments: str) -> Result:
    """A command of `creditrisk`, in this process: a process of its own would spend seconds on imports."""
    return CliRunner().invoke(app, arguments, env=environment(loop))


def process(loop: Loop, script: str, *arguments: str) -> CopiedProcess:
    """A process of its own that runs a script."""
    return CopiedProcess(script, arguments, environment(loop), loop.home)


def environment(loop: Loop) -> dict[str, str]:
    policy = loop.home / "policy-of-the-test.toml"
    policy.write_text(loop.settings.policy.toml())
    return {
        **loop.environment,
        "CREDITRISK_RAW_DATA": loop.settings.raw_data,
        "CREDITRISK_POLICY": str(policy),
        "CREDITRISK_ACTOR": "the test",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": "200",
    }


def entries(loop: Loop) -> list[Entry]:
    return Ledger(loop.settings.ledger).entries()


def everything_agrees(loop: Loop) -> bool:
    return all(
        finding.holds
        for finding in champion_records.verify(loop.instance, loop.settings, every_version=True)
    )


def test_first_and_promoted_champion_are_in_the_ledger_with_evidence_and_who_did_it(
    moved: Loop,
) -> None:
    first, second = entries(moved)[:2]
    assert (first.action, first.before, first.after.model_version) == ("first", None, "1")
    assert (second.action, second.after.model_version, second.challenger) == ("promoted", "2", "2")
    assert second.before == first.after
    assert second.actor.startswith("run ")
    assert "job train" in second.actor
    assert second.evidence_sha256 is not None
    assert len(second.evidence_sha256) == 64
    assert second.after.bundle_sha256 == moved.metadata("model")["bundle_sha256"]
    assert everything_agrees(moved)


def test_history_and_show_tell_who_was_in_force_when(moved: Loop) -> None:
    history_told = json.loads(command(moved, "champion", "history", "--json").stdout)["entries"]
    assert [entry["action"] for entry in history_told[:2]] == ["first", "promoted"]
    first, second = entries(moved)[:2]
    between = first.at + datetime.timedelta(seconds=1)
    assert between < second.at
    shown = command(
        moved, "champion", "show", "--at", between.strftime("%Y-%m-%dT%H:%M:%S"), "--json"
    )
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["model_version"] == "1"
    early = command(moved, "champion", "show", "--at", "2001-01-01")
    assert early.exit_code == 1
    assert "no champion was in force at 2001-01-01" in early.stderr
    table = command(moved, "champion", "history")
    assert table.exit_code == 0
    assert "2 promoted" in table.stdout
    assert second.why in table.stdout


def description(loop: Loop, version: str) -> str:
    """The description of a version in MLflow."""
    client = mlflow.MlflowClient(loop.settings.tracking_uri, loop.settings.tracking_uri)
    number = champion_records.registry_of(loop.settings).version(version).record.mlflow_version
    return str(client.get_model_version("credit_default", number).description)


def test_mlflow_describes_each_version_by_its_verdict_and_a_later_move_loses_none_of_it(
    moved: Loop,
) -> None:
    """A list of bare numbers: whoever looks into MLflow did not learn which version was refused, and why."""
    first, second = entries(moved)[:2]
    before, promoted = description(moved, "1"), description(moved, "2")
    today = f"{second.at:%Y-%m-%d}"
    assert before.startswith(
        f"**First champion; champion until {today}, then version 2.** No champion before: AUC 0."
    )
    assert promoted.startswith(
        f"**Promoted; champion now.** {second.why[0].upper()}{second.why[1:]}."
    )
    verdict = moved.metadata("champion")["verdict_document"]
    sides = [verdict[side]["figures"]["roc_auc"] for side in ("challenger", "champion")]
    assert f"| AUC | {sides[0]:.4f} | {sides[1]:.4f} |" in promoted
    assert "| version 2 | champion then, version 1 |" in promoted
    assert f"/reports/verdicts/{second.evidence_sha256})" in promoted
    assert "/artifacts/model_card.html)" in promoted
    assert f"/runs/{moved.metadata('model')['mlflow_run_id']})" in promoted
    assert f"- 1, {first.at:%Y-%m-%d %H:%M} UTC: first champion." in before
    assert f"- 2, {second.at:%Y-%m-%d %H:%M} UTC: replaced by version 2." in before
    champion_commands.rollback(moved.instance, moved.settings, "1", "for the description")
    assert "**First champion; champion now.**" in description(moved, "1")
    assert "champion again, in place of version 2. for the description" in description(moved, "1")
    left = description(moved, "2")
    assert left.startswith(f"**Promoted; champion until {today}, then version 1.**")
    assert "rolled back. for the description" in left
    unchanged = promoted.split("\n\n")[1:-1]  # all but the state and the entries of the ledger
    assert all(part in left for part in unchanged)
    champion_commands.rollback(moved.instance, moved.settings, "2", "and back")
    assert description(moved, "2").startswith("**Promoted; champion now.**")


def test_a_rollback_is_one_command_that_the_api_follows_and_no_run_undoes(moved: Loop) -> None:
    now = moved.champion().model_version
    before = len(entries(moved))
    with api(moved) as client:
        assert client.get("/ready").json()["model_version"] == now
        result = command(moved, "champion", "rollback", "--why", "complaints about version 2")
        assert result.exit_code == 0, result.stderr
        other = moved.champion().model_version
        until(lambda: client.get("/ready").json()["model_version"] == other, 5)
    last = entries(moved)[-1]
    assert (last.action, last.actor, last.why) == (
        "rolled_back",
        "the test",
        "complaints about version 2",
    )
    assert {now, other} == {"1", "2"}
    assert (len(entries(moved)), last.after.model_version) == (before + 1, other)
    assert moved.champion().verdict == "rolled_back"
    check = dg.AssetCheckKey(dg.AssetKey("champion"), "champion_records_agree")
    looked_at = moved.instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[
        check
    ]
    assert looked_at.status == AssetCheckExecutionRecordStatus.SUCCEEDED
    assert looked_at.event is not None
    assert looked_at.event.timestamp > last.at.timestamp()
    assert everything_agrees(moved)
    assert moved.make("champion").success  # the newest model is the one that was taken out of force
    assert moved.champion().model_version == other
    assert "is not judged again" in moved.champion().reason
    assert everything_agrees(moved)


def test_what_cannot_be_rolled_back_to_is_refused_with_what_is_valid(moved: Loop) -> None:
    now = moved.champion().model_version
    before = len(entries(moved))
    for version in ("7", now, "x"):
        result = command(moved, "champion", "rollback", version, "--why", "a try")
        assert result.exit_code == 1
        assert (
            f"version {version} cannot be rolled back to; valid: {({'1', '2'} - {now}).pop()}"
            in result.stderr
        )
    assert command(moved, "champion", "rollback").exit_code == 2
    assert len(entries(moved)) == before


def test_a_cut_off_is_a_ledger_entry_no_retrain_and_decides_from_then_on(moved: Loop) -> None:
    old = moved.champion()
    moved.land_day("2026-04-01", customers(300, 5))
    assert moved.run("score_production", "2026-04-01").success
    first = moved.frame("production_scores", "2026-04-01")
    stricter = float(first["default_probability"].quantile(0.3))
    result = command(moved, "champion", "cut-off", str(stricter), "--why", "a bad year")
    assert result.exit_code == 0, result.stderr
    new = moved.champion()
    assert (new.bundle_sha256, new.model_version) == (old.bundle_sha256, old.model_version)
    assert new.rule.cut_off == stricter
    assert new.rule.reference != old.rule.reference
    assert entries(moved)[-1].after.cut_off_by == "policy"
    assert moved.run("score_production", "2026-04-01").success
    assert first.equals(
        moved.frame("production_scores", "2026-04-01")
    )  # what was acted on is the record
    _, later = scorings_of(moved.settings.decisions, "2026-04-01")
    second = pd.read_parquet(str(moved.settings.decisions / "2026-04-01" / f"{later.name}.parquet"))
    assert first["default_probability"].equals(second["default_probability"])
    assert second["prediction"].equals((second["default_probability"] >= stricter).astype("int8"))
    assert second["prediction"].sum() > first["prediction"].sum()
    assert not first["reason_1"].equals(second["reason_1"])
    assert (
        len(sets_of(moved.settings.decisions, "2026-04-01")) == 2
    )  # the first decisions were made and stay
    told = json.loads(command(moved, "replay", "--date", "2026-04-01", "--json").stdout)["sets"]
    assert [(one["rows"], one["different"], one["problem"]) for one in told] == [(300, 0, None)] * 2
    again = command(moved, "champion", "cut-off", str(stricter), "--why", "twice")
    assert again.exit_code == 1
    assert f"cut-off {stricter} is in force already" in again.stderr
    assert command(moved, "champion", "cut-off", "--why", "the year is over").exit_code == 0
    assert moved.champion().rule == old.rule
    assert everything_agrees(moved)


def test_a_pinned_cut_off_decides_as_before_and_stays_when_the_model_changes(moved: Loop) -> None:
    before = moved.champion()
    result = command(moved, "champion", "cut-off", "--pin", "--why", "the board has set it")
    assert result.exit_code == 0, result.stderr
    assert "it stays when the model changes" in result.stdout
    assert (moved.champion().rule, entries(moved)[-1].after.cut_off_by) == (before.rule, "policy")
    assert f"PD {before.rule.cut_off:.4f}, set by policy" in " ".join(
        command(moved, "status").stdout.split()
    )
    twice = command(moved, "champion", "cut-off", "--pin", "--why", "again")
    assert (twice.exit_code, "is in force already, set by policy" in twice.stderr) == (1, True)
    assert command(moved, "champion", "cut-off", "0.3", "--pin", "--why", "both").exit_code == 2
    rolled = command(moved, "champion", "rollback", "--why", "a trial")
    assert rolled.exit_code == 0, rolled.stderr
    assert moved.champion().rule.cut_off == before.rule.cut_off
    assert "set by policy" in rolled.stdout
    assert (
        command(moved, "champion", "rollback", before.model_version, "--why", "and back").exit_code
        == 0
    )
    assert command(moved, "champion", "cut-off", "--why", "the model's own again").exit_code == 0
    assert moved.champion().rule == before.rule
    assert "the model's own: a promotion moves it" in " ".join(
        command(moved, "status").stdout.split()
    )


def test_simulate_lands_the_customers_of_the_history_that_no_model_learns_from(moved: Loop) -> None:
    """The README's own path: `make train` on a file, then `simulate` without naming it, landed simulated customers for a champion
    of real ones, and undisturbed days gave alarms.
    """
    unnamed = environment(moved) | {"CREDITRISK_RAW_DATA": "simulated"}
    asked = ["simulate", "--days", "2", "--rows", "60", "--start", "2026-04-20", "--no-outcomes"]
    result = CliRunner().invoke(app, asked, env=unnamed)
    assert result.exit_code == 0, result.stderr
    history = pd.read_csv(moved.settings.raw_data, dtype={PORTFOLIO.identifier: str}).set_index(
        PORTFOLIO.identifier
    )
    held_out = is_held_out(history.index)
    assert (
        f"customers: {held_out.sum():,} of file history-good-7.csv that no model learns from"
        in " ".join(result.stdout.split())
    )
    for day in ("2026-04-20", "2026-04-21"):
        landed = pd.read_csv(
            str(moved.settings.landing_production / day / "customers.csv"),
            dtype={PORTFOLIO.identifier: str},
        )
        own = landed[PORTFOLIO.identifier].str.removeprefix("new_")
        assert len(set(own)) == 60
        assert set(own) <= set(history.index[held_out])
        assert landed[PORTFOLIO.field_names].equals(
            history[PORTFOLIO.field_names].loc[own.tolist()].reset_index(drop=True)
        )
    same = command(
        moved,
        "simulate",
        "--from",
        moved.settings.raw_data,
        "--rows",
        "60",
        "--start",
        "2026-04-22",
    )
    assert "that no model learns from" in " ".join(same.stdout.split())
    too_many = command(moved, "simulate", "--rows", "2000", "--start", "2026-04-23")
    assert (
        too_many.exit_code,
        "a day has 2,000 customers; valid: at most the" in too_many.stderr,
    ) == (1, True)


def test_policy_shows_what_each_cut_off_would_bring_and_writes_it(
    moved: Loop, tmp_path: Path
) -> None:
    result = command(moved, "champion", "policy", "--output", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "LGD 0.75, EAD 1.0 of limit_bal" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "trade_off.csv",
        "trade_off.png",
        "grades.csv",
    }
    told = json.loads(command(moved, "champion", "policy", "--json").stdout)
    cut_offs = [row["cut_off"] for row in told["trade_off"]]
    assert moved.champion().rule.cut_off in cut_offs
    assert cut_offs == sorted(cut_offs)
    assert all(
        row["bad_rate_refused"] is None or 0 <= row["bad_rate_refused"] <= 1
        for row in told["trade_off"]
    )
    held_out = moved.bundle().manifest.metrics["rows"]
    assert sum(row["customers"] for row in told["grades"]) == held_out


def test_one_decision_of_the_day_is_explained_a_year_later(moved: Loop) -> None:
    moved.land_day("2026-04-02", customers(200, 6))
    assert moved.run("score_production", "2026-04-02").success
    frame = moved.frame("production_scores", "2026-04-02")
    row = frame[frame["reason_1"].notna()].iloc[0]
    result = command(moved, "replay", row["decision_id"])
    assert result.exit_code == 0, result.stderr
    texts = {reason.code: reason.text for reason in PORTFOLIO.reasons}
    assert f"{row['reason_1']}: {texts[row['reason_1']]}" in result.stdout
    assert f"by version {row['model_version']}, bundle {row['bundle_sha256']}" in result.stdout
    assert repr(float(row["default_probability"])) in result.stdout
    unknown = command(moved, "replay", "2026-04-02-0000000000000000-1")
    assert unknown.exit_code == 1
    assert "does not exist" in unknown.stderr
    assert command(moved, "replay").exit_code == 2


def test_a_changed_byte_of_a_logged_decision_is_found_by_replay_and_by_the_audit(
    moved: Loop,
) -> None:
    moved.land_day("2026-04-03", customers(150, 8))
    assert moved.run("score_production", "2026-04-03").success
    audit = moved.run("audit")
    assert all(check.passed for check in checks(audit).values())
    (kept,) = sets_of(moved.settings.decisions, "2026-04-03")
    path = moved.settings.decisions / "2026-04-03" / f"{kept.name}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    result = command(moved, "replay", "--date", "2026-04-03")
    assert result.exit_code == 1
    assert f"{kept.name}.parquet was changed" in result.stderr
    found = checks(moved.run("audit"))["past_decisions_replay"]
    assert not found.passed
    assert "was changed" in str(found.metadata["summary"].value)
    path.write_bytes(content)


def test_a_changed_policy_is_an_entry_of_the_ledger_and_every_record_still_agrees(
    moved: Loop,
) -> None:
    before = entries(moved)
    assert moved.tick(retrain_on_drift).skip_reason
    assert len(entries(moved)) == len(before)
    former = moved.settings.policy
    moved.settings.policy = former.model_copy(
        update={"drift": former.drift.model_copy(update={"days": 5})}
    )
    moved.definitions = build_definitions(moved.settings)
    moved.tick(retrain_on_drift)
    moved.tick(retrain_on_drift)
    (entry,) = entries(moved)[len(before) :]
    assert (entry.action, entry.why) == ("policy", "the policy changed: drift.days 3 to 5")
    assert entry.after == before[-1].after
    assert entry.policy_sha256 == moved.settings.policy.sha256 != before[-1].policy_sha256
    stored = Policy.read(moved.settings.policies / f"{entry.policy_sha256}.toml")
    assert stored == moved.settings.policy
    assert checks(moved.run("audit"))["champion_records_agree"].passed


def test_an_alias_moved_by_hand_is_an_alarm_until_the_next_run_of_champion(moved: Loop) -> None:
    registry = champion_records.registry_of(moved.settings)
    right = moved.champion().model_version
    wrong = ({"1", "2"} - {right}).pop()
    registry.set_champion(wrong)
    result = command(moved, "champion", "verify")
    assert result.exit_code == 1
    assert (
        f"does not hold: MLflow's alias champion names the same bundle: alias: bundle {registry.version(wrong).bundle_sha256}"
        in result.stdout
    )
    found = checks(moved.run("audit"))["champion_records_agree"]
    assert not found.passed
    assert "alias" in str(found.metadata["summary"].value)
    assert moved.make("champion").success
    assert registry.champion_bundle() == moved.champion().bundle_sha256
    assert command(moved, "champion", "verify").exit_code == 0


def test_a_changed_byte_of_any_champions_bundle_is_found(moved: Loop) -> None:
    for in_force in {entry.after.model_version: entry.after for entry in entries(moved)}.values():
        places = {"bundle": in_force.artifact_uri}
        if in_force.fallback is not None:
            places["fallback bundle"] = in_force.fallback.artifact_uri
        for what, place in places.items():
            path = moved.settings.data_dir / place / "model.onnx"
            content = path.read_bytes()
            path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
            result = command(moved, "champion", "verify")
            assert result.exit_code == 1
            assert f"does not hold: the {what} of version {in_force.model_version}" in result.stdout
            path.write_bytes(content)
    assert command(moved, "champion", "verify").exit_code == 0


def test_on_a_ledger_with_a_changed_byte_nothing_is_promoted_or_rolled_back(moved: Loop) -> None:
    path = moved.settings.ledger / "000001.json"
    content = path.read_bytes()
    if is_local(path):
        path.chmod(0o644)
    path.write_bytes(content.replace(b'"first"', b'"First"'))
    now = moved.champion()
    verified = command(moved, "champion", "verify")
    assert verified.exit_code == 1
    assert "000001.json" in verified.stdout
    assert command(moved, "champion", "rollback", "--why", "a try").exit_code == 1
    assert not moved.make("champion").success
    path.write_bytes(content)
    assert moved.champion() == now
    assert everything_agrees(moved)


def test_of_several_moves_at_once_each_waits_for_the_others(moved: Loop) -> None:
    """Real processes; the last entry of the ledger is what alias, asset and API have."""
    before = len(entries(moved))
    asked = [("rollback",), ("cut-off", "0.31")]
    started = [
        process(moved, COMMAND, "champion", *arguments, "--why", "all at once")
        for arguments in asked
    ]
    for one in started:
        assert one.ended() == 0, one.errors.read_text()
    made = entries(moved)
    assert len(made) == before + len(asked)
    assert all(later.before == earlier.after for earlier, later in itertools.pairwise(made))
    assert moved.champion().rule == made[-1].after.rule
    assert everything_agrees(moved)


COMMAND = """
import sys
from creditrisk_assets.cli.main import main
main()
"""

KILLED = """
import os, signal, sys
from creditrisk_assets.governance.ledger import Ledger
from creditrisk_assets.registry import Registry

def die(*arguments, **settings):
    os.kill(os.getpid(), signal.SIGKILL)

def then_die(function):
    def called(*arguments, **settings):
        function(*arguments, **settings)
        die()
    return called

step = sys.argv.pop(1)
if step == "before the ledger":
    Ledger.append = die
elif step == "after the ledger":
    Ledger.append = then_die(Ledger.append)
elif step == "after the alias":
    Registry.set_champion = then_die(Registry.set_champion)
"""


CHAMPION_ALONE = """
from pathlib import Path
from creditrisk_assets.settings import Settings
from tests.support.loop import Loop
Loop.opened(Path.cwd(), Settings()).make("champion")
"""


def test_a_promotion_killed_at_any_step_leaves_one_whole_champion_and_the_next_run_heals_it(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    loop = poorly_trained_loop(tmp_path / "site", tmp_path_factory)
    for seed, (step, in_alias) in enumerate(
        [("after the ledger", False), ("after the alias", True)]
    ):
        old = loop.champion().model_version
        loop.settings.raw_data = history(loop.home, poor=False, seed=seed)
        assert loop.make("raw_data", "features", "model").success
        new = str(loop.metadata("model")["model_version"])
        killed = process(loop, KILLED + CHAMPION_ALONE, step)
        assert killed.ended() == -signal.SIGKILL
        registry = champion_records.registry_of(loop.settings)
        assert (
            registry.champion_bundle() == registry.version(new if in_alias else old).bundle_sha256
        )
        assert entries(loop)[-1].after.model_version == new
        assert loop.champion().model_version == old  # what the API serves: the old one, whole
        findings = champion_records.verify(loop.instance, loop.settings, every_version=True)
        assert all(finding.holds for finding in findings if "golden answers" in finding.claim)
        assert not all(finding.holds for finding in findings)
        assert loop.make("champion").success
        assert loop.champion().model_version == new
        assert everything_agrees(loop)
        champion_commands.rollback(
            loop.instance, loop.settings, "1", "so that the next one is better again"
        )
    assert [entry.after.model_version for entry in entries(loop)] == ["1", "2", "1", "3", "1"]
    loop.close()


@pytest.mark.parametrize("step", ["before the ledger", "after the ledger", "after the alias"])
def test_a_rollback_killed_at_any_step_is_healed_by_the_next_run(moved: Loop, step: str) -> None:
    served = moved.champion().model_version
    other = ({"1", "2"} - {served}).pop()
    killed = process(
        moved,
        KILLED + COMMAND.replace("import sys", ""),
        step,
        "champion",
        "rollback",
        other,
        "--why",
        "killed",
    )
    assert killed.ended() == -signal.SIGKILL
    assert moved.champion().model_version == served
    written = step != "before the ledger"
    assert everything_agrees(moved) is not written
    assert moved.make("champion").success
    assert moved.champion().model_version == (other if written else served)
    assert everything_agrees(moved)


def test_without_any_champion_each_command_says_what_to_do(fresh: Loop) -> None:
    for arguments in (
        ("show",),
        ("history",),
        ("rollback", "--why", "x"),
        ("cut-off", "0.3", "--why", "x"),
        ("verify",),
    ):
        result = command(fresh, "champion", *arguments)
        assert result.exit_code == 1, arguments
        assert "make train" in result.stderr + result.stdout, arguments
    nothing = command(fresh, "replay", "--date", "2026-01-01")
    assert "no decisions of 2026-01-01" in nothing.stderr
    assert event_log.champion_in_force(fresh.instance) is None
