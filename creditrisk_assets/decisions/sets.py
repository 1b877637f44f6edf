"""Stores decisions: the records, the answers, and their bundle and rule. Stored decisions are never
replaced.

A decision set holds the decisions on one day's batch by one bundle and one rule: a Parquet file,
and a JSON document that names the bundle and the file's SHA-256. A set is written once; a day that
is scored again, by another champion or after another file has landed, gets another set with the
next number. A set's name is the digest of its inputs, so that the same decisions have the same ids.
A set of the API's decisions has the name of their segment of the decision log.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from creditrisk_assets.portfolio.columns import encoded_columns
from creditrisk_assets.scoring.bundle import ChampionRecord, Document
from creditrisk_assets.scoring.runtime import Runtime
from creditrisk_assets.storage import StoredPath, create_file, file_sha256, put_file

DECISION_ID = "decision_id"
REASONS = ("reason_1", "reason_2", "reason_3", "reason_4")
DECISION = re.compile(r"(\d{4}-\d{2}-\d{2})-([0-9a-f]{16})-(\d{1,12})", re.ASCII)
NAME_LENGTH = 16
ROWS_AT_ONCE = 16_384


class DecisionsError(RuntimeError):
    """Decisions cannot be found, or were changed; the message names them."""


class NoSuchDecision(DecisionsError):
    """There is no decision with this id."""


class DecisionSet(Document):
    """The document of a set.

    Attributes:
        day: of the batch.
        batch_sha256: of the day's accepted rows, or of the segment.
        champion: the model that decided, and its rule.
        rows: number of decisions.
        file_sha256: of the Parquet file.
        segment: name of the segment, for decisions of the API; None for those of a batch.
        number: 1 for the first scoring of the day's batch, 2 for the next and so on; set when the
            set is stored, None for decisions of the API.
        sha256: over all of the above.
    """

    day: str
    batch_sha256: str
    champion: ChampionRecord
    rows: int
    file_sha256: str
    segment: str | None = None
    number: int | None = None
    sha256: str = ""

    def content(self) -> bytes:
        return (self.model_dump_json(indent=2, exclude=self._absent) + "\n").encode()

    def digest(self) -> str:
        """SHA-256 over everything but itself."""
        content = json.dumps(
            self.model_dump(exclude={"sha256", *self._absent}),
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def name(self) -> str:
        """The middle part of its decisions' ids."""
        return self.segment or set_name(self.day, self.batch_sha256, self.champion)

    @property
    def _absent(self) -> set[str]:
        """A batch's document has no segment, a segment's no number."""
        return {name for name in ("segment", "number") if getattr(self, name) is None}


def set_name(day: str, batch_sha256: str, champion: ChampionRecord) -> str:
    """The digest of a set's inputs."""
    inputs = [
        day,
        batch_sha256,
        champion.model_version,
        champion.bundle_sha256,
        champion.rule.model_dump(),
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:NAME_LENGTH]


def decision_ids(day: str, name: str, first: int, rows: int) -> pa.Array:
    """Ids of consecutive decisions, such as `2026-03-01-0123456789abcdef-0`; the last part is the
    row.
    """
    return pa.array([f"{day}-{name}-{row}" for row in range(first, first + rows)])


def answer_columns(runtime: Runtime, records: pa.RecordBatch) -> dict[str, pa.Array]:
    """Answers on records, as the stored columns default_probability, score, prediction, and
    reason_1 to reason_4.

    Raises:
        DifferentDecisionError: if compiled code decides otherwise than the graphs.
    """
    manifest = runtime.bundle.manifest
    decided = runtime.decide(encoded_columns(records, manifest.inputs))
    codes = pa.array([reason.code for reason in manifest.reasons])
    reasons = {}
    for place, name in enumerate(REASONS):
        indices = (
            decided.reasons[:, place]
            if place < decided.reasons.shape[1]
            else np.full(len(records), -1)
        )
        reasons[name] = codes.take(pa.array(indices, mask=indices < 0))
    return {
        "default_probability": pa.array(decided.default_probability),
        "score": pa.array(decided.score),
        "prediction": pa.array(decided.prediction),
        **reasons,
    }


def store_set(folder: StoredPath, local: Path, decisions: DecisionSet) -> DecisionSet:
    """Store a finished file of decisions, and then its document. A stored set is not replaced.

    Args:
        folder: of all decisions.
        local: the file; it is moved.
        decisions: its document.

    Returns:
        The set as it is stored.

    Raises:
        DecisionsError: if the set is stored with other content: the same inputs gave other bytes.
    """
    document = folder / decisions.day / f"{decisions.name}.json"
    if not document.exists():
        put_file(local, folder / decisions.day / f"{decisions.name}.parquet")
        if decisions.segment is None:
            decisions = decisions.model_copy(
                update={"number": len(scorings_of(folder, decisions.day)) + 1}
            )
        signed = decisions.model_copy(update={"sha256": decisions.digest()})
        with contextlib.suppress(FileExistsError):  # another run has stored the same set
            create_file(document, signed.content())
    local.unlink(missing_ok=True)
    stored = _read(document)
    if stored.file_sha256 != decisions.file_sha256:
        raise DecisionsError(
            f"{document} names SHA-256 {stored.file_sha256}; the same inputs now give "
            f"{decisions.file_sha256}. Decisions that were made are never replaced."
        )
    return stored


def scorings_of(folder: StoredPath, day: str) -> list[DecisionSet]:
    """The sets of a day's batch in the order of scoring; the first was acted on.

    Raises:
        DecisionsError: if a document cannot be read.
    """
    return sorted(
        (decisions for decisions in sets_of(folder, day) if decisions.segment is None),
        key=lambda decisions: (decisions.number or 0, decisions.name),
    )


def sets_of(folder: StoredPath, day: str) -> list[DecisionSet]:
    """The sets of a day.

    Raises:
        DecisionsError: if a document cannot be read.
    """
    place = folder / day
    if not place.is_dir():
        return []
    names = sorted(path.name for path in place.iterdir() if path.name.endswith(".json"))
    return [_read(place / name) for name in names]


def days_with_decisions(folder: StoredPath) -> list[str]:
    """Days with decisions, oldest first."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def stored_decision(folder: StoredPath, decision_id: str) -> tuple[ChampionRecord, pa.RecordBatch]:
    """The champion and the row of a stored decision.

    Raises:
        DecisionsError: if there is no such decision, or its file was changed.
    """
    day, name, row = parse_id(decision_id)
    document = folder / day / f"{name}.json"
    if not document.exists():
        raise NoSuchDecision(f"decision {decision_id}: {document} does not exist")
    decisions = _read(document)
    if row >= decisions.rows:
        raise NoSuchDecision(
            f"decision {decision_id}: the set has {decisions.rows} rows; valid: 0 to "
            f"{decisions.rows - 1}"
        )
    done = 0
    for batch in stored_batches(folder, decisions):
        if row < done + len(batch):
            return decisions.champion, batch.slice(row - done, 1)
        done += len(batch)
    raise DecisionsError(
        f"decision {decision_id}: the file ends at row {done}; valid: {decisions.rows} rows"
    )


def parse_id(decision_id: str) -> tuple[str, str, int]:
    """Day, set name and row of a decision's id.

    Raises:
        DecisionsError: if it is not the id of a decision.
    """
    match = DECISION.fullmatch(decision_id)
    if match is None:
        raise DecisionsError(
            f"decision {decision_id!r:.80}; valid: <day>-<16 hexadecimal digits>-<row>, as scores "
            "and answers have it"
        )
    return match[1], match[2], int(match[3])


def verified_file(folder: StoredPath, decisions: DecisionSet) -> StoredPath:
    """The Parquet file of a set, after a check of its SHA-256.

    Raises:
        DecisionsError: if it cannot be read or was changed.
    """
    path = folder / decisions.day / f"{decisions.name}.parquet"
    try:
        found = file_sha256(path)
    except OSError as error:
        raise DecisionsError(f"{path} cannot be read: {error}") from error
    if found != decisions.file_sha256:
        raise DecisionsError(
            f"{path} was changed: it has SHA-256 {found}; valid: {decisions.file_sha256}"
        )
    return path


def stored_batches(folder: StoredPath, decisions: DecisionSet) -> Iterator[pa.RecordBatch]:
    """The decisions of a set, in batches of some rows.

    Raises:
        DecisionsError: if the file cannot be read or was changed.
    """
    with verified_file(folder, decisions).open("rb") as file:
        yield from pq.ParquetFile(file).iter_batches(ROWS_AT_ONCE)


def _read(document: StoredPath) -> DecisionSet:
    try:
        content = document.read_bytes()
        decisions = DecisionSet.model_validate_json(content)
    except (ValidationError, OSError) as error:
        raise DecisionsError(f"{document} cannot be read: {error}") from error
    if document.name != f"{decisions.name}.json" or decisions.sha256 != decisions.digest():
        raise DecisionsError(
            f"{document} was changed: its SHA-256 is {decisions.digest()}; valid: "
            f"{decisions.sha256}, which it carries"
        )
    if content != decisions.content():
        raise DecisionsError(
            f"{document} was changed: it has the same content in other bytes than were written"
        )
    return decisions
