"""Decisions that were made: found by their id, made again to the bit, and no changed byte goes unseen."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditrisk_assets.decisions import sets as store
from creditrisk_assets.decisions.replay import replay_decision, replay_sample, replay_set
from creditrisk_assets.decisions.sets import DecisionsError, DecisionSet
from creditrisk_assets.scoring.bundle import Bundle, BundleError, ChampionRecord, DecisionRule
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.scoring.runtime import Runtime
from tests.support.examples import champion_of

DAY = "2026-03-01"


def decided(
    folder: Path, bundle: Bundle, customers: pd.DataFrame, champion: ChampionRecord, day: str = DAY
) -> DecisionSet:
    """Decide on customers and keep the decisions, as the production day does."""
    records = pa.RecordBatch.from_pandas(customers, preserve_index=False)
    name = store.set_name(day, "b" * 64, champion)
    columns = {
        store.DECISION_ID: store.decision_ids(day, name, 0, len(records)),
        **dict(zip(records.schema.names, records.columns, strict=True)),
        **store.answer_columns(Runtime(bundle, champion.rule), records),
    }
    folder.mkdir(parents=True, exist_ok=True)
    local = folder / "staged"
    pq.write_table(pa.table(columns), local)
    digest = hashlib.sha256(local.read_bytes()).hexdigest()
    kept = DecisionSet(
        day=day, batch_sha256="b" * 64, champion=champion, rows=len(records), file_sha256=digest
    )
    store.store_set(folder, local, kept)
    return kept


@pytest.fixture(scope="module")
def kept(bundle: Bundle, strangers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 decisions; tests that change a file work on a copy."""
    folder = tmp_path_factory.mktemp("decisions")
    decided(folder, bundle, strangers.head(300), champion_of(bundle, "3"))
    return folder


@pytest.fixture(scope="module")
def bundles(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    """A store that has the bundle that decided."""
    found = BundleStore(tmp_path_factory.mktemp("store"))
    found.put(bundle)
    return found


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "decisions"))


def only_set(folder: Path) -> DecisionSet:
    (one,) = store.sets_of(folder, DAY)
    return one


def test_a_day_is_made_again_to_the_bit(bundles: BundleStore, kept: Path) -> None:
    done: list[int] = []
    replayed = replay_set(kept, bundles, only_set(kept), done.append)
    assert replayed.exact
    assert (replayed.rows, replayed.different, sum(done)) == (300, 0, 300)


def test_one_decision_is_found_by_its_id_with_who_made_it_and_why(
    bundles: BundleStore, kept: Path, bundle: Bundle, strangers: pd.DataFrame
) -> None:
    frame = pd.read_parquet(str(store.verified_file(kept, only_set(kept))))
    row = int(np.flatnonzero(frame["reason_2"].notna())[5])
    codes = [str(frame[name][row]) for name in ("reason_1", "reason_2")]
    replayed = replay_decision(bundles, *store.stored_decision(kept, frame[store.DECISION_ID][row]))
    assert replayed.exact
    assert replayed.stored["id"] == strangers["id"][row]
    assert replayed.now["default_probability"] == frame["default_probability"][row]
    texts = {reason.code: reason.text for reason in bundle.manifest.reasons}
    assert list(replayed.reasons)[:2] == [(code, texts[code]) for code in codes]
    assert replayed.champion.bundle_sha256 == bundle.sha256


@given(data=st.data())
def test_one_changed_byte_of_the_decisions_or_of_their_document_is_found(
    bundles: BundleStore, kept: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Also where it moves no PD, as in a protected field."""
    folder = Path(shutil.copytree(kept, tmp_path_factory.mktemp("changed") / "decisions"))
    path = folder / DAY / f"{only_set(kept).name}.{data.draw(st.sampled_from(['json', 'parquet']))}"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(DecisionsError, match=path.name):
        replay_decision(bundles, *store.stored_decision(folder, f"{DAY}-{only_set(kept).name}-7"))


def test_a_decision_changed_together_with_its_digests_does_not_come_out_again(
    bundles: BundleStore, copy: Path, bundle: Bundle
) -> None:
    """Whoever can write every file can make them fit each other, but not make the bundle say so."""
    before = only_set(copy)
    path = copy / DAY / f"{before.name}.parquet"
    frame = pd.read_parquet(path)
    frame.loc[11, "default_probability"] = np.nextafter(frame["default_probability"][11], 1)
    explained = int(np.flatnonzero(frame["reason_1"].notna())[-1])
    frame.loc[explained, "reason_1"] = None
    frame.to_parquet(path, index=False)
    forged = before.model_copy(
        update={"file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    )
    forged = forged.model_copy(update={"sha256": forged.digest()})
    (copy / DAY / f"{before.name}.json").unlink()
    (copy / DAY / f"{before.name}.json").write_bytes(forged.content())
    replayed = replay_set(copy, bundles, only_set(copy))
    assert not replayed.exact
    assert replayed.different == 2
    assert f"{DAY}-{before.name}-11: default_probability was" in replayed.differences[0]
    assert f"{DAY}-{before.name}-{explained}: reason_1 was None" in replayed.differences[1]
    assert not replay_decision(
        bundles, *store.stored_decision(copy, f"{DAY}-{before.name}-11")
    ).exact


def test_a_bundle_that_is_gone_or_was_changed_is_named(
    copy: Path, bundle: Bundle, strangers: pd.DataFrame, tmp_path: Path
) -> None:
    bundles = BundleStore(tmp_path / "store")
    bundles.put(bundle)
    kept = decided(copy, bundle, strangers.head(5), champion_of(bundle, "4"), "2026-03-02")
    manifest = bundles.folder(bundle.sha256) / "extra_files" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("Platt", "platt") + " ")
    problem = replay_set(copy, bundles, kept).problem
    assert problem is not None
    assert "has SHA-256" in problem
    with pytest.raises(BundleError, match="has SHA-256"):
        replay_decision(bundles, *store.stored_decision(copy, f"2026-03-02-{kept.name}-0"))


def test_deciding_again_by_the_same_champion_keeps_what_is_kept_and_by_another_rule_adds_a_set(
    bundles: BundleStore, copy: Path, bundle: Bundle, strangers: pd.DataFrame
) -> None:
    before = only_set(copy)
    decided(copy, bundle, strangers.head(300), champion_of(bundle, "3"))
    assert only_set(copy) == before
    stricter = champion_of(
        bundle, "3", DecisionRule(cut_off=0.05, reference=bundle.manifest.rule.reference)
    )
    decided(copy, bundle, strangers.head(300), stricter)
    sets = store.sets_of(copy, DAY)
    assert len(sets) == 2
    assert before in sets
    assert all(replay_set(copy, bundles, one).exact for one in sets)


def test_other_decisions_on_the_same_inputs_are_refused_and_the_first_ones_stay(
    bundles: BundleStore, copy: Path, bundle: Bundle, strangers: pd.DataFrame
) -> None:
    """Then something does not give the same bytes twice, and nobody may overwrite what was told to customers."""
    with pytest.raises(DecisionsError, match="Decisions that were made are never replaced"):
        decided(copy, bundle, strangers.tail(300), champion_of(bundle, "3"))
    assert replay_set(copy, bundles, only_set(copy)).exact


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ("nonsense", "valid: <day>-<16 hexadecimal digits>-<row>"),
        ("../../etc/passwd", "valid: <day>-<16 hexadecimal digits>-<row>"),
        (f"{DAY}-0123456789abcdef-1", "0123456789abcdef.json does not exist"),
        ("2031-01-01-0123456789abcdef-1", "does not exist"),
    ],
)
def test_a_decision_that_was_never_made_is_not_found(
    bundles: BundleStore, kept: Path, decision: str, message: str
) -> None:
    with pytest.raises(DecisionsError, match=message):
        replay_decision(bundles, *store.stored_decision(kept, decision))


def test_a_row_after_the_last_is_not_found(bundles: BundleStore, kept: Path) -> None:
    with pytest.raises(DecisionsError, match="the set has 300 rows; valid: 0 to 299"):
        replay_decision(bundles, *store.stored_decision(kept, f"{DAY}-{only_set(kept).name}-300"))


def test_a_sample_of_past_days_is_made_again(
    bundles: BundleStore, copy: Path, bundle: Bundle, strangers: pd.DataFrame, tmp_path: Path
) -> None:
    assert replay_sample(tmp_path / "none", bundles, 1) == []
    for day in range(2, 10):
        decided(copy, bundle, strangers.head(20), champion_of(bundle, "3"), f"2026-03-0{day}")
    replayed = replay_sample(copy, bundles, 1)
    assert len({one.decisions.day for one in replayed}) == 5
    assert all(one.exact and one.rows >= 20 for one in replayed)
    for path in copy.glob("*/*.parquet"):
        path.write_bytes(b"nothing")
    assert not any(one.exact for one in replay_sample(copy, bundles, 1))


def test_where_a_model_is_documented_is_no_part_of_its_decisions(
    kept: Path, bundle: Bundle
) -> None:
    """Sets that were written before the champion said so must keep their bytes, for they are kept for ever."""
    told = champion_of(bundle, "3").model_copy(update={"documents_uri": "/documents"})
    found = only_set(kept)
    assert found.model_copy(update={"champion": told}).content() == found.content()
    assert b"documents_uri" not in found.content()
    assert store.set_name(DAY, "b" * 64, told) == found.name
