"""Sensors over many old days: what they look at, and that a late file of any day is found."""

import datetime
import os
import time
from collections.abc import Sequence

import dagster as dg
import pytest
from upath import UPath

from creditrisk_assets.defs import landing_scan
from creditrisk_assets.defs.event_log import SCORES
from creditrisk_assets.defs.sensors import (
    RUNS_PER_TICK,
    new_outcome_partitions,
    new_production_partitions,
)
from creditrisk_assets.landing.cursor import SLICE_DAYS, WINDOW_DAYS, LandingCursor
from creditrisk_assets.landing.listing import (
    list_day,
    listing_stamp,
    quick_stamps,
    zone_names,
)
from creditrisk_assets.storage import StoredPath, is_local
from tests.support.buckets import put_key
from tests.support.loop import Loop

FIRST = datetime.date(2024, 1, 2)
COUNT = 300
TURNS = -(-(COUNT - WINDOW_DAYS) // SLICE_DAYS)


def day(number: int) -> str:
    return (FIRST + datetime.timedelta(days=number)).isoformat()


def write(zone: StoredPath, name: str, text: str = "id\n1\n") -> None:
    (zone / name).mkdir(parents=True, exist_ok=True)
    (zone / name / "a.csv").write_text(text)


@pytest.fixture
def old(fresh: Loop) -> Loop:
    """A loop with a champion, 300 days that were dealt with, and zones that have been still for a while."""
    rule = dg.MetadataValue.json({"cut_off": 0.2, "reference": [0.5]})
    words = dict.fromkeys(
        ("mlflow_uri", "artifact_uri", "model_version", "bundle_sha256", "verdict", "reason"), "x"
    )
    fresh.instance.report_runless_asset_event(
        dg.AssetMaterialization("champion", metadata={**words, "rule": rule})
    )
    for zone in (fresh.settings.landing_production, fresh.settings.landing_outcomes):
        if not is_local(zone):  # many at once
            keys = [(zone / day(number) / "a.csv").path for number in range(COUNT)]
            zone.fs.pipe(dict.fromkeys(keys, b"id\n1\n"))
            continue
        for number in range(COUNT):
            write(zone, day(number))
    asked(fresh, new_production_partitions, 2)
    asked(fresh, new_outcome_partitions, 1)
    still(fresh)
    return fresh


def still(loop: Loop) -> None:
    for zone in (loop.settings.landing_production, loop.settings.landing_outcomes):
        if is_local(zone):
            os.utime(zone, (time.time() - 60, time.time() - 60))


def asked(loop: Loop, sensor: dg.SensorDefinition, ticks: int = 1) -> list[str]:
    return [
        str(one.partition_key) for _ in range(ticks) for one in loop.tick(sensor).run_requests or []
    ]


def test_many_days_at_once_are_all_asked_for_once_some_at_a_time(fresh: Loop, old: Loop) -> None:
    old.cursors.clear()
    assert len(first := asked(old, new_production_partitions)) == RUNS_PER_TICK
    assert sorted(first + asked(old, new_production_partitions)) == [
        day(number) for number in range(COUNT)
    ]
    assert asked(old, new_production_partitions, 3) == []


@pytest.mark.parametrize("number", [0, 1, COUNT - WINDOW_DAYS - 1])
def test_a_file_of_an_old_day_that_is_changed_in_place_is_found_in_its_turn(
    old: Loop, number: int
) -> None:
    write(old.settings.landing_production, day(number), "id\n2\n3\n")
    still(old)
    assert asked(old, new_production_partitions, TURNS + 1) == [day(number)]
    assert asked(old, new_production_partitions, TURNS + 1) == []


def test_a_file_of_one_of_the_newest_days_or_of_a_new_old_day_is_found_at_once(old: Loop) -> None:
    write(old.settings.landing_production, day(COUNT - 20), "id\n2\n3\n")
    still(old)
    assert asked(old, new_production_partitions) == [day(COUNT - 20)]
    write(old.settings.landing_production, "2015-02-03")
    write(old.settings.landing_production, day(COUNT + 30))
    assert asked(old, new_production_partitions) == ["2015-02-03", day(COUNT + 30)]


def test_a_tick_looks_at_a_bounded_number_of_days(
    old: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    listed: list[UPath] = []

    def counted_stamps(zone: UPath, days: Sequence[str]) -> dict[str, str | None]:
        looked.append(len(days))
        return quick_stamps(zone, days)

    def names(zone: UPath) -> tuple[list[str], list[str]]:
        listed.append(zone)
        return zone_names(zone)

    monkeypatch.setattr(landing_scan, "quick_stamps", counted_stamps)
    monkeypatch.setattr(landing_scan, "zone_names", names)
    monkeypatch.setattr(
        landing_scan, "list_day", lambda folder: pytest.fail(f"{folder} was listed")
    )
    assert asked(old, new_production_partitions, 2 * TURNS) == []
    assert max(looked) == WINDOW_DAYS + SLICE_DAYS
    # An object store has no time of a folder that says whether it has other names.
    most = 3 if is_local(old.settings.data_dir) else 2 * TURNS
    assert 1 <= len(listed) <= most


def test_outcomes_are_assessed_again_at_once_when_their_old_day_is_scored_again(old: Loop) -> None:
    """And those that waited for their day, however old it is, when it is scored at last."""
    assert asked(old, new_outcome_partitions, TURNS + 1) == [], "300 days wait to be scored"
    for number in (3, 3):
        old.instance.report_runless_asset_event(
            dg.AssetMaterialization(SCORES, partition=day(number))
        )
        assert asked(old, new_outcome_partitions) == [day(number)]
        assert asked(old, new_outcome_partitions, TURNS + 1) == []


@pytest.mark.embedded("the time of an object is in whole seconds")
def test_a_day_that_still_changes_is_looked_at_until_it_is_still(old: Loop) -> None:
    old.settings = old.settings.model_copy(update={"settle_seconds": 0.5})
    write(old.settings.landing_production, day(0), "id\n2\n3\n")
    still(old)
    assert asked(old, new_production_partitions, TURNS + 1) == []
    time.sleep(0.6)
    assert asked(old, new_production_partitions) == [day(0)]


def test_quick_stamps_of_a_bucket_are_the_stamps_of_its_listings(bucket: UPath) -> None:
    zone = bucket / "landing" / "production"
    for number in (0, 1, 40, 41, 42):
        put_key(f"{day(number)}/a.csv")
    put_key(f"{day(1)}/b.parquet")
    put_key(f"{day(40)}/.hidden.csv")
    put_key(f"{day(41)}/notes.xlsx")
    put_key(f"{day(42)}/../x.csv")
    put_key(f"{day(43)}/", b"")  # what the console's button "create folder" makes
    seen = quick_stamps(zone, [day(number) for number in (0, 1, 40, 41, 42, 43, 44)])
    for number in (0, 1, 40):
        assert seen.pop(day(number)) == listing_stamp(list_day(zone / day(number)))
    assert seen == {day(41): None, day(42): None}
    assert LandingCursor().needs_names("")
