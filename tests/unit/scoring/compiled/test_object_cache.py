"""The cache of machine code: its owner alone may write it, and damage is repaired."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from creditrisk_assets.scoring.compiled.errors import UnsafeCacheError
from creditrisk_assets.scoring.compiled.object_cache import cached


def refuse() -> bytes:
    pytest.fail("made again")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def file(folder: Path) -> Path:
    """A cached file."""
    assert cached(folder, b"key", lambda: b"code") == b"code"
    (found,) = folder.iterdir()
    return found


def test_a_file_is_made_once_and_named_by_its_key(folder: Path, file: Path) -> None:
    assert file.name == f"{hashlib.sha256(b'key').hexdigest()}.o"
    assert cached(folder, b"key", refuse) == b"code"
    assert cached(folder, b"other", lambda: b"other code") == b"other code"


def test_folder_and_file_are_of_their_owner_alone(folder: Path, file: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_folder_it_is_made_each_time() -> None:
    assert cached(None, b"key", lambda: b"code") == b"code"


@pytest.mark.parametrize("content", [b"", b"code", hashlib.sha256(b"code").digest() + b"cade"])
def test_a_damaged_file_is_made_again(folder: Path, file: Path, content: bytes) -> None:
    whole = file.read_bytes()
    file.write_bytes(content)
    assert cached(folder, b"key", lambda: b"code") == b"code"
    assert file.read_bytes() == whole
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o640, 0o602, 0o610])
def test_a_file_that_others_may_use_is_refused(folder: Path, file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(UnsafeCacheError, match=f"{file.name} is .*; valid: of user"):
        cached(folder, b"key", refuse)


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o701])
def test_a_folder_that_others_may_use_is_refused(folder: Path, file: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(UnsafeCacheError, match=f"{folder.name} is "):
        cached(folder, b"key", refuse)


def test_a_folder_of_another_user_is_refused(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UnsafeCacheError, match=f"of user {owner}; valid: of user {owner + 1}"):
        cached(folder, b"key", refuse)


def test_a_file_of_another_user_is_refused(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is this user's, the file in it is not."""
    real, foreign = os.fstat, os.geteuid() + 1

    def fstat(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[stat.ST_UID] = foreign
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(UnsafeCacheError, match=f"{file.name} is .* of user {foreign}"):
        cached(folder, b"key", refuse)


def test_a_link_is_refused(folder: Path, file: Path, tmp_path: Path) -> None:
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeCacheError, match="is a link; valid: a file"):
        cached(folder, b"key", refuse)


def test_a_linked_folder_is_refused(folder: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UnsafeCacheError, match="link is l"):
        cached(tmp_path / "link", b"key", refuse)
