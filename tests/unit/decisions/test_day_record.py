"""The record of a day: the first decision on each record, whatever was scored later and in which order the rows stand."""

import dataclasses
import hashlib
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from creditrisk_assets.decisions import sets as store
from creditrisk_assets.decisions.day_record import write_day_record
from creditrisk_assets.decisions.sets import DecisionsError, DecisionSet
from creditrisk_assets.portfolio.contract import Field, Portfolio
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import Bundle
from creditrisk_assets.scoring.runtime import Runtime
from tests.support.examples import champion_of

DAY = "2026-03-01"
IDENTIFIER = PORTFOLIO.identifier


def scored(
    folder: Path, bundle: Bundle, customers: pd.DataFrame, version: str, batch: str
) -> tuple[DecisionSet, pd.DataFrame]:
    """A scoring of a day, kept; and its decisions."""
    champion = champion_of(bundle, version)
    records = pa.RecordBatch.from_pandas(customers, preserve_index=False)
    name = store.set_name(DAY, batch, champion)
    columns = {
        store.DECISION_ID: store.decision_ids(DAY, name, 0, len(records)),
        **dict(zip(records.schema.names, records.columns, strict=True)),
        **store.answer_columns(Runtime(bundle, champion.rule), records),
        "model_version": pa.array([version] * len(records)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "staged")
    frame = pd.read_parquet(folder / "staged")
    digest = hashlib.sha256((folder / "staged").read_bytes()).hexdigest()
    made = DecisionSet(
        day=DAY, batch_sha256=batch, champion=champion, rows=len(records), file_sha256=digest
    )
    return store.store_set(folder, folder / "staged", made), frame


def record_of(
    folder: Path, earlier: list[DecisionSet], frame: pd.DataFrame, portfolio: Portfolio = PORTFOLIO
) -> pd.DataFrame:
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "scored.parquet")
    write_day_record(
        folder, earlier, folder / "scored.parquet", folder / "record.parquet", portfolio
    )
    return pd.read_parquet(folder / "record.parquet")


@pytest.fixture
def customers(strangers: pd.DataFrame) -> pd.DataFrame:
    return strangers.head(60).drop(columns=PORTFOLIO.target).reset_index(drop=True)


def test_scorings_of_a_day_are_numbered_in_their_order(
    bundle: Bundle, customers: pd.DataFrame, tmp_path: Path
) -> None:
    numbers = [
        scored(tmp_path, bundle, customers, version, "b" * 64)[0].number
        for version in ("7", "3", "5", "3")
    ]
    assert numbers == [1, 2, 3, 2]
    assert [one.champion.model_version for one in store.scorings_of(tmp_path, DAY)] == [
        "7",
        "3",
        "5",
    ]


def test_the_first_decision_on_the_same_fields_of_the_same_customer_counts(
    bundle: Bundle, customers: pd.DataFrame, tmp_path: Path
) -> None:
    first, first_frame = scored(tmp_path, bundle, customers.head(40), "1", "a" * 64)
    second, second_frame = scored(tmp_path, bundle, customers.head(50), "2", "b" * 64)
    corrected = customers.copy()
    corrected.loc[[0, 45], "bill_amt1"] += 1
    corrected.loc[[1, 2], IDENTIFIER] = customers.loc[[2, 1], IDENTIFIER].to_numpy()
    shuffled = corrected.sample(frac=1, random_state=3)
    _, third_frame = scored(tmp_path, bundle, shuffled, "3", "c" * 64)
    record = record_of(tmp_path, [first, second], third_frame)
    assert list(record[IDENTIFIER]) == list(shuffled[IDENTIFIER])
    by = record.set_index(IDENTIFIER)
    anew = {*corrected.loc[[0, 1, 2, 45], IDENTIFIER], *corrected.loc[50:, IDENTIFIER]}
    assert set(by.index[by["model_version"] == "3"]) == anew
    assert set(by.index[by["model_version"] == "2"]) == set(customers.loc[40:49, IDENTIFIER]) - anew
    for frame, version in ((first_frame, "1"), (second_frame, "2"), (third_frame, "3")):
        same = by[by["model_version"] == version]
        pd.testing.assert_frame_equal(same, frame.set_index(IDENTIFIER).loc[same.index.tolist()])


def test_a_set_that_was_changed_gives_no_record(
    bundle: Bundle, customers: pd.DataFrame, tmp_path: Path
) -> None:
    first, _ = scored(tmp_path, bundle, customers.head(40), "1", "a" * 64)
    _, frame = scored(tmp_path, bundle, customers, "2", "b" * 64)
    (tmp_path / DAY / f"{first.name}.parquet").write_bytes(b"x")
    with pytest.raises(DecisionsError, match="was changed"):
        record_of(tmp_path, [first], frame)


def test_decisions_on_records_of_fewer_fields_were_on_other_records(
    bundle: Bundle, customers: pd.DataFrame, tmp_path: Path
) -> None:
    first, frame = scored(tmp_path, bundle, customers, "1", "a" * 64)
    late, *others = PORTFOLIO.reasons
    more = Field("income", "added later", "NT$", 0, 1_000)
    wider = dataclasses.replace(
        PORTFOLIO,
        published_names={},  # which have no name for it
        fields=(*PORTFOLIO.fields, more),
        reasons=(dataclasses.replace(late, fields=(*late.fields, "income")), *others),
    )
    later = frame.assign(income=5, model_version="2")
    assert set(record_of(tmp_path, [first], later, wider)["model_version"]) == {"2"}
