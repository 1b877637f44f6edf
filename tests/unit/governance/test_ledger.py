"""The promotion ledger: nothing in it can be changed, removed or put in without being seen, and of two who append one does."""

import datetime
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.governance.ledger import (
    Action,
    Entry,
    InForce,
    Ledger,
    LedgerError,
    LedgerMoved,
    Move,
    in_force_at,
    last_move,
    rollback_of,
    version_before,
)
from creditrisk_assets.policy import Policy
from creditrisk_assets.scoring.bundle import DecisionRule


def version(number: int) -> InForce:
    return InForce(
        model_version=str(number),
        mlflow_uri=f"models:/credit_default/{number}",
        artifact_uri=f"/bundles/{number}",
        bundle_sha256=f"{number:064x}",
        rule=DecisionRule(cut_off=0.1 + number / 100, reference=[1.5, None]),
        cut_off_by="model",
    )


def move(after: int, before: int | None = None, action: Action = "promoted") -> Move:
    return Move(
        action=action,
        actor="test",
        day="2026-01-01",
        before=version(before) if before else None,
        after=version(after),
        challenger=str(after),
        why=f"because of {after}, „really“",
        evidence_sha256="ab" * 32,
        policy_sha256=Policy().sha256,
    )


def written(folder: Path, *afters: int) -> list[Entry]:
    ledger = Ledger(folder)
    head, before = ledger.head(), None
    for after in afters:
        head = ledger.append(move(after, before), head)
        before = after
    return ledger.entries()


def test_entries_are_read_back_as_they_were_written_in_a_chain(tmp_path: Path) -> None:
    entries = written(tmp_path / "ledger", 1, 2, 3)
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert [entry.after for entry in entries] == [version(1), version(2), version(3)]
    assert entries[0].previous_sha256 == "0" * 64
    assert [entry.previous_sha256 for entry in entries[1:]] == [
        entry.sha256 for entry in entries[:-1]
    ]
    assert Ledger(tmp_path / "ledger").head() == entries[-1]


def test_an_empty_ledger_has_no_entries_and_no_head(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none").entries() == []
    assert Ledger(tmp_path / "none").head() is None


@given(data=st.data())
def test_one_changed_byte_anywhere_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    written(folder, 1, 2, 3)
    path = folder / f"00000{data.draw(st.integers(1, 3))}.json"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=path.name):
        Ledger(folder).entries()


def test_an_entry_forged_with_a_digest_of_its_own_breaks_the_chain(tmp_path: Path) -> None:
    entries = written(tmp_path, 1, 2, 3)
    forged = entries[1].model_copy(update={"why": "another reason"})
    forged = forged.model_copy(update={"sha256": forged.digest()})
    (tmp_path / "000002.json").unlink()
    (tmp_path / "000002.json").write_bytes(forged.content())
    with pytest.raises(LedgerError, match=r"000003.json: previous_sha256"):
        Ledger(tmp_path).entries()


@pytest.mark.parametrize("number", [1, 2])
def test_a_removed_entry_is_missed_by_name(tmp_path: Path, number: int) -> None:
    written(tmp_path, 1, 2, 3)
    (tmp_path / f"00000{number}.json").unlink()
    with pytest.raises(
        LedgerError, match=f"entry {number} is missing; valid: every number from 1 to 3"
    ):
        Ledger(tmp_path).entries()


def test_an_entry_put_in_another_place_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    content = (tmp_path / "000001.json").read_bytes()
    (tmp_path / "000002.json").unlink()
    (tmp_path / "000002.json").write_bytes(content)
    with pytest.raises(LedgerError, match=r"000002.json was changed"):
        Ledger(tmp_path).entries()


def test_a_decision_on_an_older_head_must_be_made_again(tmp_path: Path) -> None:
    first, second = written(tmp_path, 1, 2)
    with pytest.raises(
        LedgerMoved,
        match=r"000002.json exists: the champion was moved meanwhile; decide again",
    ):
        Ledger(tmp_path).append(move(3, 1), first)
    assert Ledger(tmp_path).entries() == [first, second]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.json", "000002.json"]


def test_other_files_in_the_folder_are_no_entries(tmp_path: Path) -> None:
    entries = written(tmp_path, 1)
    (tmp_path / ".000002.json.x1y2").write_text("half")
    (tmp_path / "notes.txt").write_text("by hand")
    assert Ledger(tmp_path).entries() == entries


def test_an_entry_with_a_field_unknown_here_is_refused_not_half_read(tmp_path: Path) -> None:
    written(tmp_path, 1)
    document = json.loads((tmp_path / "000001.json").read_text()) | {"approved": True}
    (tmp_path / "000001.json").unlink()
    (tmp_path / "000001.json").write_text(json.dumps(document))
    with pytest.raises(LedgerError, match="approved"):
        Ledger(tmp_path).entries()


def test_what_was_in_force_at_a_moment(tmp_path: Path) -> None:
    entries = written(tmp_path, 1, 2)
    tick = datetime.timedelta(microseconds=1)
    assert in_force_at(entries, entries[0].at - tick) is None
    assert in_force_at(entries, entries[0].at) == entries[0]
    assert in_force_at(entries, entries[1].at - tick) == entries[0]
    assert in_force_at(entries, entries[1].at + datetime.timedelta(days=400)) == entries[1]


def test_what_is_in_force_came_into_force_by_a_move_and_not_by_the_refusal_of_another(
    tmp_path: Path,
) -> None:
    """`champion show` used to say of version 2 that it was champion since, and because, version 3 was refused."""
    ledger, head = Ledger(tmp_path), None
    for one in (move(1, action="first"), move(2, 1), move(2, 2, "rejected")):
        head = ledger.append(one, head)
    entries = ledger.entries()
    assert last_move(entries) == in_force_at(entries, entries[-1].at) == entries[1]


def test_the_version_before_is_another_version_however_often_it_was_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    head = None
    for one in (move(1, action="first"), move(2, 1), move(2, 2, "rejected"), move(2, 2, "cut_off")):
        head = ledger.append(one, head)
    entries = ledger.entries()
    before = version_before(entries)
    assert before is not None
    assert before.model_version == "1"
    assert version_before(entries[:1]) is None


def test_a_version_that_was_rolled_back_from_is_remembered(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    head = None
    for one in (move(1, action="first"), move(2, 1), move(1, 2, "rolled_back")):
        head = ledger.append(one, head)
    entry = rollback_of(ledger.entries(), "2")
    assert entry is not None
    assert entry.number == 3
    assert rollback_of(ledger.entries(), "1") is None
