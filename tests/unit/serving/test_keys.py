"""Keys are made, rotated, revoked, and followed by a running API."""

import datetime
import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving.access import keys
from serving.access.keys import (
    KeyRing,
    KeysError,
    OpenBeyondLoopback,
    create_key,
    is_loopback,
    read_keys,
    require_keys_beyond_loopback,
    revoke_keys,
    rotate_key,
)
from tests.support.places import REPOSITORY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "api-keys.json"


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0.0)


def past() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)


def test_a_key_is_known_by_its_text_and_the_file_does_not_hold_it(file: Path) -> None:
    text = create_key(file, "bank", ["predict"])
    assert keys.KEY.fullmatch(text)
    caller = KeyRing(file).caller(text.encode())
    assert caller is not None
    assert caller == keys.Caller("bank", frozenset({"predict"}), text[3:15])
    assert text[16:] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_admin_may_do_everything(file: Path) -> None:
    caller = caller_of(file, create_key(file, "boss", ["admin"]))
    assert caller is not None
    assert caller.scopes == {"predict", "read", "acknowledge", "admin"}


def caller_of(file: Path, text: str) -> keys.Caller | None:
    return KeyRing(file).caller(text.encode())


def test_a_key_that_is_nearly_right_is_wrong(file: Path) -> None:
    text = create_key(file, "bank", ["predict"])
    other_end = text[:-1] + ("0" if text[-1] != "0" else "1")
    for wrong in (other_end, "", text + "0", text[:-1], text.upper(), "cr_" + "0" * 77):
        assert caller_of(file, wrong) is None


def test_two_keys_work_while_one_is_rotated_in_and_a_third_is_refused(file: Path) -> None:
    first = create_key(file, "bank", ["predict", "read"])
    second = rotate_key(file, "bank")
    assert caller_of(file, first) is not None
    caller = caller_of(file, second)
    assert caller is not None
    assert caller.scopes == {"predict", "read"}
    with pytest.raises(KeysError, match=f"creditrisk keys revoke bank --key {first[3:15]}"):
        rotate_key(file, "bank")
    assert revoke_keys(file, "bank", first[3:15]) == [first[3:15]]
    assert caller_of(file, first) is None
    assert caller_of(file, second) is not None
    rotate_key(file, "bank")


def test_an_expired_key_does_not_work_and_makes_room(file: Path) -> None:
    first = create_key(file, "bank", ["predict"], past())
    ring = KeyRing(file)
    assert ring.requires_keys
    assert ring.caller(first.encode()) is None
    rotate_key(file, "bank")
    rotate_key(file, "bank")
    assert first[3:15] not in [key.id for key in read_keys(file).callers["bank"].keys]


@pytest.mark.parametrize(
    ("name", "scopes"),
    [("", ["read"]), ("a b", ["read"]), ("anonymous", ["read"]), ("bank", []), ("bank", ["all"])],
)
def test_a_caller_without_a_name_or_scopes_is_refused(
    file: Path, name: str, scopes: list[keys.Scope]
) -> None:
    with pytest.raises(KeysError, match="valid"):
        create_key(file, name, scopes)


def test_what_cannot_be_changed_says_what_is_there(file: Path) -> None:
    text = create_key(file, "bank", ["predict"])
    with pytest.raises(KeysError, match="creditrisk keys rotate bank"):
        create_key(file, "bank", ["read"])
    with pytest.raises(KeysError, match="known: bank"):
        rotate_key(file, "blank")
    with pytest.raises(KeysError, match=f"valid: {text[3:15]}"):
        revoke_keys(file, "bank", "0" * 12)


def test_a_running_api_follows_the_file(file: Path, looks_at_once: None) -> None:
    ring = KeyRing(file)
    before = ring.requires_keys
    first = create_key(file, "bank", ["predict"])
    assert (before, ring.requires_keys) == (False, True)
    assert ring.caller(first.encode()) is not None
    second = rotate_key(file, "bank")
    revoke_keys(file, "bank", first[3:15])
    assert ring.caller(first.encode()) is None
    assert ring.caller(second.encode()) is not None


def test_a_running_api_is_not_opened_by_the_loss_of_its_keys(
    file: Path, looks_at_once: None
) -> None:
    """Whoever can empty the file, or does so by mistake, must not let everybody in."""
    text = create_key(file, "bank", ["predict"])
    ring = KeyRing(file)
    revoke_keys(file, "bank")
    assert ring.caller(text.encode()) is None
    assert ring.requires_keys
    file.unlink()
    assert ring.requires_keys


def test_a_file_that_breaks_leaves_the_last_keys_in_force_and_is_reported(
    file: Path, looks_at_once: None
) -> None:
    text = create_key(file, "bank", ["predict"])
    ring = KeyRing(file)
    good = file.read_bytes()
    file.write_bytes(good[:-20])
    assert ring.caller(text.encode()) is not None
    assert ring.problem is not None
    assert "is no file of keys" in ring.problem
    file.write_bytes(good)
    assert ring.caller(text.encode()) is not None
    assert not ring.problem


@pytest.mark.parametrize(
    "content", ["{", '{"callers": {"bank": {"scopes": [], "keys": []}}}', '{"users": {}}', "[]"]
)
def test_a_broken_file_is_refused_at_the_start(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(KeysError, match="is no file of keys"):
        KeyRing(file)


def test_of_callers_that_are_made_at_once_none_is_lost(file: Path) -> None:
    threads = [
        threading.Thread(target=create_key, args=(file, f"caller{place}", ["predict"]))
        for place in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keys(file).callers) == 12
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "api-keys.json",
        "api-keys.json.lock",
    ]


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - it must be refused
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
        ("no-such-name.invalid", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
    ],
)
def test_what_other_machines_can_reach_is_beyond_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_without_keys_the_api_listens_on_loopback_only(file: Path) -> None:
    ring = KeyRing(file)
    require_keys_beyond_loopback("127.0.0.1", ring)
    with pytest.raises(OpenBeyondLoopback, match="creditrisk keys create NAME --scope predict"):
        require_keys_beyond_loopback("0.0.0.0", ring)  # noqa: S104
    require_keys_beyond_loopback("0.0.0.0", ring, open_beyond_loopback=True)  # noqa: S104
    create_key(file, "bank", ["predict"])
    require_keys_beyond_loopback("0.0.0.0", KeyRing(file))  # noqa: S104


@pytest.mark.starts_processes
def test_the_command_makes_rotates_lists_and_revokes(file: Path) -> None:
    def keys(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "creditrisk_assets.cli.main", "keys", *words],
            env={
                "CREDITRISK_API_KEYS_FILE": str(file),
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(REPOSITORY),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    made = keys("create", "bank", "--scope", "predict", "--scope", "read", "--expires-days", "30")
    assert made.returncode == 0
    text = made.stdout.strip()
    assert caller_of(file, text) is not None
    assert keys("create", "bank", "--scope", "everything").returncode == 2
    assert keys("create", "bank", "--scope", "read").returncode == 1
    assert keys("rotate", "bank").returncode == 0
    listed = json.loads(keys("list", "--json").stdout)["callers"]["bank"]
    assert listed["scopes"] == ["predict", "read"]
    assert [key["live"] for key in listed["keys"]] == [True, True]
    assert text[16:] not in json.dumps(listed)
    assert text[3:15] in keys("list").stdout
    assert keys("revoke", "bank", "--key", text[3:15]).returncode == 0
    last = keys("revoke", "bank")
    assert last.returncode == 0
    assert "no keys are left" in last.stderr
