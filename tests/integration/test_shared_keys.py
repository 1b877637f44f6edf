"""Idempotency keys that several replicas share, on a real PostgreSQL server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from creditrisk_assets import database
from creditrisk_assets.decisions.idempotency import KeysUnavailable, StoredAnswer
from creditrisk_assets.decisions.shared_keys import SharedKeys, replica_of

REPLICAS = ("one", "two", "three")


@pytest.fixture
def replicas(database_url: str) -> Iterator[list[SharedKeys]]:
    database.prepare(database_url)
    shared = [SharedKeys(database_url, name) for name in REPLICAS]
    yield shared
    for one in shared:
        one.close()


def test_a_key_is_decided_once_and_every_replica_has_its_answer(replicas: list[SharedKeys]) -> None:
    one, two, _ = replicas
    assert one.claim("bank", {"k": "d", "l": "d"}) == {}
    assert two.claim("fintech", {"k": "other"}) == {}
    with pytest.raises(KeysUnavailable, match="was sent to another replica"):
        two.claim("bank", {"new": "d", "k": "d"})
    one.add("bank", "k", b"answer")
    one.record()
    assert two.claim("bank", {"new": "d", "k": "d"}) == {"k": StoredAnswer("d", b"answer")}
    assert one.claim("bank", {"k": "e", "l": "d"}) == {"k": StoredAnswer("d", b"answer")}


def test_of_many_claims_at_once_one_wins(replicas: list[SharedKeys]) -> None:
    keys = [f"key {number}" for number in range(60)]

    def claims(shared: SharedKeys) -> int:
        won = 0
        for key in keys:
            try:
                shared.claim("bank", {key: "d", f"{key}/2": "d"})
                won += 1
            except KeysUnavailable:
                continue
        return won

    with ThreadPoolExecutor(len(replicas)) as pool:
        assert sum(pool.map(claims, replicas)) == len(keys)


def test_after_a_crash_the_own_log_tells_what_was_decided(
    replicas: list[SharedKeys], database_url: str
) -> None:
    one, two, _ = replicas
    one.claim("bank", {"decided": "d", "undecided": "d"})
    again = SharedKeys(database_url, REPLICAS[0])
    known = {("bank", "decided"): StoredAnswer("d", b"answer")}
    assert again.settle(lambda caller, key: known.get((caller, key))) == 2
    assert two.claim("bank", {"decided": "d"}) == {"decided": StoredAnswer("d", b"answer")}
    assert two.claim("bank", {"undecided": "d"}) == {}
    assert again.settle(lambda *_: None) == 0
    again.close()


def test_old_keys_are_forgotten(replicas: list[SharedKeys]) -> None:
    replicas[0].claim("bank", {"k": "d"})
    assert replicas[1].forget(60) == 0
    assert replicas[1].forget(0) == 1
    assert replicas[1].claim("bank", {"k": "d"}) == {}


def test_without_its_database_a_key_is_refused_in_words() -> None:
    shared = SharedKeys("postgresql://nobody@127.0.0.1:9/none", "one")
    with pytest.raises(KeysUnavailable, match="the database of idempotency keys"):
        shared.claim("bank", {"k": "d"})


def test_a_replica_keeps_its_id(tmp_path: Path) -> None:
    first = replica_of(tmp_path / "api")
    assert first == replica_of(tmp_path / "api")
    assert first != replica_of(tmp_path / "other")
