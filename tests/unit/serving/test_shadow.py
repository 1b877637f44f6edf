"""Shadow scores: what is dropped, what is kept, and what the gate makes of them; real bundles, real files."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from creditrisk_assets.decisions.archive import decision_table
from creditrisk_assets.decisions.codec import PLAIN
from creditrisk_assets.decisions.log import SegmentHeader, SegmentWriter
from creditrisk_assets.decisions.sets import DecisionSet, keep
from creditrisk_assets.decisions.shadow import keep_shadows, shadow_days, shadow_scores
from creditrisk_assets.decisions.shadow_log import ShadowHeader, line_of
from creditrisk_assets.governance.gate_tests import nothing_shadowed, shadow_agrees
from creditrisk_assets.governance.promotion_gate import judge
from creditrisk_assets.governance.shadow_evidence import (
    NOTHING_SHADOWED,
    ShadowEvidence,
    ShadowFolders,
)
from creditrisk_assets.governance.verdict import GateLimits
from creditrisk_assets.scoring.bundle import GRAPH, Bundle
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import Settings
from serving.inference import shadow as shadowing
from serving.inference.champion_holder import LoadedChampion
from serving.inference.champion_source import Contender, DagsterInstanceSource
from serving.inference.decider import Group
from serving.inference.shadow import WAITING_ROWS_LIMIT, Shadow, ShadowLog
from serving.ops.metrics import Metrics
from tests.support.examples import (
    HANDMADE,
    WrittenBundle,
    champion_of,
    held_out,
    written_bundle,
)

LIMITS = GateLimits.of(Settings())
DAY, CHAMPION_SEGMENT, SHADOW_SEGMENT = "2026-03-01", "0" * 16, "1" * 16
ROWS: list[dict[str, Any]] = [
    {str(name): value for name, value in row.items()}
    for row in held_out(400, 3)[HANDMADE.field_names].to_dict("records")
]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def say(instance: dg.DagsterInstance, asset: str, bundle: WrittenBundle) -> None:
    """Materialize an asset that names a bundle."""
    values = champion_of(bundle.load(), bundle.version).model_dump(exclude={"fallback", "rule"})
    metadata = {
        **values,
        "rule": dg.MetadataValue.json({"cut_off": 0.3, "reference": [0.0] * len(HANDMADE.fields)}),
    }
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))


def stored(data_dir: Path, bundle: WrittenBundle) -> WrittenBundle:
    """A bundle in a store too."""
    BundleStore(data_dir).put(bundle.load())
    return bundle


@pytest.fixture
def champion(tmp_path: Path) -> WrittenBundle:
    return stored(tmp_path, written_bundle(tmp_path / "champion", 1, held_out(2_000), version="1"))


@pytest.fixture
def challenger(tmp_path: Path) -> WrittenBundle:
    return stored(
        tmp_path, written_bundle(tmp_path / "challenger", 0, held_out(2_000), version="2")
    )


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    counting = Metrics(tmp_path / "metrics")
    yield counting
    counting.close()


def shadow_over(instance: dg.DagsterInstance, metrics: Metrics, folder: Path) -> Shadow:
    shadow_log = ShadowLog(folder, HANDMADE.name, PLAIN, 1 << 20, 60)
    return Shadow(
        DagsterInstanceSource(lambda: instance),
        HANDMADE,
        BundleStore(folder.parent),
        shadow_log,
        metrics,
    )


def group(champion: WrittenBundle, rows: Sequence[dict[str, Any]]) -> Group:
    bundle = champion.load()
    record = champion_of(bundle, "1")
    header = SegmentHeader(name=CHAMPION_SEGMENT, day=DAY, portfolio=HANDMADE.name, champion=record)
    raw = bundle.encoder(rows)
    ids = [header.decision_id(row) for row in range(len(rows))]
    return Group(
        LoadedChampion(record, bundle),
        raw,
        bundle.decide(raw, record.rule),
        header,
        ids,
        [b""] * len(rows),
        0.0,
        0.0,
    )


def scores(folder: Path, kept: Path, challenger: WrittenBundle) -> pd.DataFrame:
    keep_shadows(folder, kept, PLAIN, kept.with_name("scratch"))
    found = [
        table.to_pandas()
        for day in shadow_days(kept)
        for table in shadow_scores(kept, day, challenger.bundle_sha256)
    ]
    return pd.concat(found) if found else pd.DataFrame()


def probabilities(bundle: WrittenBundle, rows: Sequence[dict[str, Any]] = ROWS) -> list[float]:
    loaded = bundle.load()
    return [float(one) for one in loaded.score(loaded.encoder(rows)).default_probability]


def test_whoever_was_registered_last_is_challenger_unless_it_was_champion(
    instance: dg.DagsterInstance,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    metrics: Metrics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A version that was taken out of force is not judged again; one that was refused may be."""
    monkeypatch.setattr(shadowing, "LOOK_SECONDS", 0.0)
    shadow = shadow_over(instance, metrics, tmp_path / "log")

    def waiting() -> int:
        shadow._look()
        shadow.decided(group(champion, ROWS[:3]))
        return len(shadow._waiting)

    say(instance, "model", champion)
    say(instance, "champion", champion)
    assert waiting() == 0
    say(instance, "candidate_model", challenger)
    assert waiting() == 1
    say(instance, "champion", champion)  # the gate has refused it
    assert waiting() == 2
    say(instance, "champion", challenger)
    assert waiting() == 2
    say(instance, "champion", champion)  # rolled back
    assert waiting() == 2


def test_rows_are_dropped_and_counted_when_too_many_wait_and_answers_never_wait(
    instance: dg.DagsterInstance,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    metrics: Metrics,
    tmp_path: Path,
) -> None:
    say(instance, "champion", champion)
    say(instance, "model", challenger)
    shadow = shadow_over(instance, metrics, tmp_path / "log")
    shadow._look()
    many, fit = group(champion, ROWS), WAITING_ROWS_LIMIT // len(ROWS)
    for _ in range(fit + 2):
        shadow.decided(many)  # its thread has not begun
    assert len(shadow._waiting) == fit
    assert (
        b'creditrisk_shadow_dropped_total{reason="too_many_wait"} %d.0' % (2 * len(ROWS))
        in metrics.text()
    )
    shadow.start()
    shadow.stop()
    assert (
        b'creditrisk_shadow_scores_total{model_version="2",scored="true"} %d.0' % (fit * len(ROWS))
        in metrics.text()
    )
    assert len(scores(tmp_path / "log", tmp_path / "kept", challenger)) == fit * len(ROWS)


def test_scores_are_kept_with_both_sides_to_the_bit_and_a_torn_tail_is_left_out(
    instance: dg.DagsterInstance,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    metrics: Metrics,
    tmp_path: Path,
) -> None:
    say(instance, "champion", champion)
    say(instance, "model", challenger)
    shadow = shadow_over(instance, metrics, tmp_path / "log")
    shadow._look()
    shadow.decided(group(champion, ROWS))
    shadow.start()
    shadow.stop()
    (segment,) = (tmp_path / "log").iterdir()
    with segment.open("ab") as file:
        file.write(b"@0123")
    kept = scores(tmp_path / "log", tmp_path / "kept", challenger)
    assert list(kept["challenger_probability"]) == probabilities(challenger)
    assert list(kept["champion_probability"]) == probabilities(champion)
    assert set(kept["champion_version"]) == {"1"}
    assert set(kept["challenger_version"]) == {"2"}
    assert list(kept["decision_id"]) == [
        f"{DAY}-{CHAMPION_SEGMENT}-{row}" for row in range(len(ROWS))
    ]
    assert list((tmp_path / "log").iterdir()) == []


def test_a_disk_that_takes_no_shadows_costs_shadows_only(
    instance: dg.DagsterInstance,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    metrics: Metrics,
    tmp_path: Path,
) -> None:
    say(instance, "champion", champion)
    say(instance, "model", challenger)
    (tmp_path / "log").write_text("a file where the folder should be")
    shadow = shadow_over(instance, metrics, tmp_path / "log")
    shadow._look()
    shadow.decided(group(champion, ROWS))
    shadow.start()
    shadow.stop()
    assert (
        b'creditrisk_shadow_dropped_total{reason="not_written"} %d.0' % len(ROWS) in metrics.text()
    )


def test_a_challenger_whose_bundle_is_damaged_scores_nobody(
    instance: dg.DagsterInstance,
    champion: WrittenBundle,
    challenger: WrittenBundle,
    metrics: Metrics,
    tmp_path: Path,
) -> None:
    say(instance, "champion", champion)
    say(instance, "model", challenger)
    (BundleStore(tmp_path).folder(challenger.bundle_sha256) / GRAPH).write_bytes(b"")
    shadow = shadow_over(instance, metrics, tmp_path / "log")
    shadow._look()
    shadow.decided(group(champion, ROWS[:1]))
    assert len(shadow._waiting) == 0


def test_a_segment_that_is_written_to_is_left_alone(tmp_path: Path) -> None:
    header = ShadowHeader(
        name=SHADOW_SEGMENT,
        day=DAY,
        portfolio="any",
        champion_version="1",
        challenger_version="2",
        bundle_sha256="a",
    )
    writer = SegmentWriter(tmp_path / "log", header, PLAIN, durable=False)
    writer.append([line_of([f"{DAY}-{CHAMPION_SEGMENT}-0"], np.array([0.5]), np.array([np.nan]))])
    assert keep_shadows(tmp_path / "log", tmp_path / "kept", PLAIN, tmp_path / "scratch") == ()
    writer.close()
    assert keep_shadows(tmp_path / "log", tmp_path / "kept", PLAIN, tmp_path / "scratch") == (
        writer.path.name,
    )
    (table,) = shadow_scores(tmp_path / "kept", DAY, "a")
    assert table["challenger_probability"].to_pylist() == [None]


@dataclasses.dataclass
class Live:
    """Decisions that are kept, and shadow scores on them that a test may spoil."""

    folders: ShadowFolders
    log: Path
    champion: WrittenBundle
    challenger: WrittenBundle

    def decide(self) -> None:
        bundle = self.champion.load()
        record = champion_of(bundle, "1")
        header = SegmentHeader(
            name=CHAMPION_SEGMENT, day=DAY, portfolio=HANDMADE.name, champion=record
        )
        lines = [
            b'{"answer":{"default_probability":%b,"score":600.0,"prediction":0,"reasons":[],"cut_off":0.3,"model_version":"1",'
            b'"bundle_sha256":"b","degraded":false},"customer":%b}'
            % (repr(probability).encode(), pd.Series(row).to_json(double_precision=15).encode())
            for probability, row in zip(probabilities(self.champion), ROWS, strict=True)
        ]
        table = decision_table(HANDMADE, header, lines)
        staged = self.log.with_name("staged.parquet")
        pq.write_table(table, staged)
        digest = hashlib.sha256(staged.read_bytes()).hexdigest()
        decided = DecisionSet(
            day=DAY,
            batch_sha256="",
            champion=record,
            rows=len(ROWS),
            file_sha256=digest,
            segment=CHAMPION_SEGMENT,
        )
        keep(self.folders.decisions, staged, decided)

    def shadowed(
        self, challenger: list[float], first: int = 0, segment: str = SHADOW_SEGMENT
    ) -> None:
        header = ShadowHeader(
            name=segment,
            day=DAY,
            portfolio=HANDMADE.name,
            champion_version="1",
            challenger_version="2",
            bundle_sha256=self.challenger.bundle_sha256,
        )
        writer = SegmentWriter(self.log, header, PLAIN, durable=False)
        ids = [f"{DAY}-{CHAMPION_SEGMENT}-{first + row}" for row in range(len(challenger))]
        told = probabilities(self.champion)[first : first + len(challenger)]
        writer.append([line_of(ids, np.array(told), np.array(challenger))])
        writer.close()
        shadow = Path(str(self.folders.shadow))
        assert keep_shadows(self.log, shadow, PLAIN, shadow.with_name("scratch"))

    def evidence(self) -> ShadowEvidence:
        return self.folders.evidence(self.challenger.load(), "1")


@pytest.fixture
def live(champion: WrittenBundle, challenger: WrittenBundle, tmp_path: Path) -> Live:
    return Live(
        ShadowFolders(tmp_path / "shadow", tmp_path / "decisions", 30),
        tmp_path / "log",
        champion,
        challenger,
    )


def test_evidence_is_what_comes_out_again_from_the_kept_records(live: Live) -> None:
    assert (
        nothing_shadowed(live.evidence())
        == nothing_shadowed(NOTHING_SHADOWED)
        == "no live traffic was shadowed"
    )
    live.shadowed(probabilities(live.challenger))
    early = live.evidence()
    assert (early.rows, early.waiting) == (0, len(ROWS))
    assert (
        nothing_shadowed(early) == "no live traffic was shadowed; 400 decisions are not stored yet"
    )
    live.decide()
    found = live.evidence()
    assert (found.rows, found.failed, found.different, found.waiting, found.days) == (
        len(ROWS),
        0,
        0,
        0,
        (DAY,),
    )
    assert found.challenger.tolist() == probabilities(live.challenger)
    assert found.champion.tolist() == probabilities(live.champion)
    test = shadow_agrees(found, LIMITS)
    assert (test.passed, test.n) == (True, len(ROWS))
    other = live.folders.evidence(
        live.challenger.load(), "7"
    )  # a champion of another version has decided on none of them
    assert (other.rows, len(other.champion)) == (len(ROWS), 0)
    assert shadow_agrees(other, LIMITS).passed


def test_one_bit_or_one_row_without_a_pd_stops_a_challenger(live: Live) -> None:
    live.decide()
    spoilt = probabilities(live.challenger, ROWS[:100])
    spoilt[7] = float(np.nextafter(spoilt[7], 1))
    spoilt[8] = float("nan")
    live.shadowed(spoilt)
    found = live.evidence()
    assert (found.rows, found.failed, found.different) == (100, 1, 1)
    test = shadow_agrees(found, LIMITS)
    assert not test.passed
    assert "1 could not be scored and 1 do not come out again to the bit" in test.sentence


def test_a_challenger_that_judges_live_customers_quite_otherwise_is_stopped_and_chance_is_allowed() -> (
    None
):
    rng = np.random.default_rng(1)
    told = rng.uniform(0, 1, 1_000)
    far = ShadowEvidence(days=(DAY,), rows=1_000, champion=told, challenger=told * 0.1)
    assert not shadow_agrees(far, LIMITS).passed
    near = dataclasses.replace(far, challenger=np.clip(told + rng.normal(0, 0.01, 1_000), 0, 1))
    assert shadow_agrees(near, LIMITS).passed
    few = ShadowEvidence(days=(DAY,), rows=4, champion=told[:4], challenger=rng.uniform(0, 1, 4))
    assert shadow_agrees(few, LIMITS).passed


def test_the_gate_has_failed_a_challenger_whose_shadow_cannot_be_looked_at(live: Live) -> None:
    """Here the kept decisions were changed; a judgement without them would be one without evidence."""
    live.decide()
    live.shadowed(probabilities(live.challenger))

    def verdict() -> Any:
        return judge(
            live.challenger, live.champion, HANDMADE, LIMITS, None, live.folders.evidence
        ).verdict

    (sound,) = [test for test in verdict().tests if test.name == "shadow_agrees"]
    assert (sound.passed, sound.n) == (True, len(ROWS))
    with Path(str(live.folders.decisions), DAY, f"{CHAMPION_SEGMENT}.parquet").open("ab") as file:
        file.write(b"x")
    (test,) = [test for test in verdict().tests if test.name == "shadow_agrees"]
    assert not test.passed
    assert "could not be tested: DecisionsError" in test.sentence
    assert verdict().verdict == "kept"


def test_another_state_of_the_contract_is_encoded_again(
    champion: WrittenBundle, challenger: WrittenBundle
) -> None:
    loaded, asked = champion.load(), challenger.load()
    turned = asked.manifest.model_copy(update={"inputs": asked.manifest.inputs[::-1]})
    bundle: Bundle = dataclasses.replace(asked, manifest=turned)
    contender = Contender(model_version="2", artifact_uri="", bundle_sha256="")
    given = shadowing._Challenger(contender, bundle).probability(loaded.encoder(ROWS), loaded)
    expected = bundle.score(np.ascontiguousarray(loaded.encoder(ROWS)[:, ::-1])).default_probability
    assert given.tolist() == expected.tolist()
