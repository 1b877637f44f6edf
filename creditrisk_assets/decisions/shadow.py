"""Shadow scores as they are kept: finished segments become Parquet,
`<shadow>/<day>/<name>.parquet`, a row for each decision.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from creditrisk_assets.decisions.codec import Codec
from creditrisk_assets.decisions.log import open_segments, taken, whole_frames
from creditrisk_assets.decisions.shadow_log import ShadowHeader, ShadowScores, scores_in
from creditrisk_assets.storage import StoredPath, put_file, scratch_folder

log = structlog.get_logger()

SCHEMA = pa.schema(
    {
        "decision_id": pa.string(),
        "champion_version": pa.string(),
        "champion_probability": pa.float64(),
        "challenger_version": pa.string(),
        "bundle_sha256": pa.string(),
        "challenger_probability": pa.float64(),
    }
)
"""`bundle_sha256` is the challenger's; `challenger_probability` is null where it gave no number."""


def keep_shadows(segments: Path, kept: StoredPath, codec: Codec, scratch: Path) -> tuple[str, ...]:
    """Keep the finished segments and remove them; it can be done again after a crash. What is not
    whole is left out.

    Args:
        segments: folder of the segments, those that are written to among them.
        kept: where shadow scores are kept.
        codec: what the payloads pass through.
        scratch: folder on a disk of this machine to work in.

    Returns:
        The names of the segments that were kept. One that cannot be is logged and stays.
    """
    done = []
    for path in open_segments(segments):
        with taken(path) as mine:
            if not mine:
                continue
            try:
                table = _table(path, codec)
                if table is not None and len(table):
                    with scratch_folder(scratch) as folder:
                        staged = folder / "shadow.parquet"
                        pq.write_table(table, staged, compression="zstd")
                        put_file(staged, kept / path.name[:10] / f"{path.stem[11:]}.parquet")
                    done.append(path.name)
                path.unlink()
            # A codec of the user's own may raise anything; the other segments are to be kept.
            except Exception as error:
                log.error(
                    "shadow_not_kept", segment=path.name, problem=f"{type(error).__name__}: {error}"
                )
    return tuple(done)


def shadow_days(kept: StoredPath) -> list[str]:
    """Days of which shadow scores are kept, the oldest first."""
    return sorted(path.name for path in kept.iterdir()) if kept.is_dir() else []


def shadow_scores(kept: StoredPath, day: str, bundle_sha256: str) -> Iterator[pa.Table]:
    """What one challenger said of a day's decisions, a file at a time, by name; columns as in
    `SCHEMA`.
    """
    for name in sorted(
        path.name for path in (kept / day).iterdir() if path.name.endswith(".parquet")
    ):
        with (kept / day / name).open("rb") as file:
            table = pq.ParquetFile(file).read()
        of_this = table.filter(pc.equal(table["bundle_sha256"], bundle_sha256))
        if len(of_this):
            yield of_this


def _table(path: Path, codec: Codec) -> pa.Table | None:
    """The scores of a segment up to the first frame that is not whole; None where not even its
    header is.
    """
    header, scores, good = None, list[ShadowScores](), 0
    with path.open("rb") as file:
        for payload, end in whole_frames(file):
            content, good = codec.decode(payload), end
            if header is None:
                header = ShadowHeader.model_validate_json(content)
            else:
                scores += scores_in(content)
    if torn := path.stat().st_size - good:
        log.warning("shadow_cut", segment=path.name, bytes=torn)
    if header is None:
        return None
    ids = [one for some in scores for one in some.ids]
    columns = {
        "decision_id": ids,
        "champion_version": [header.champion_version] * len(ids),
        "champion_probability": [one for some in scores for one in some.champion],
        "challenger_version": [header.challenger_version] * len(ids),
        "bundle_sha256": [header.bundle_sha256] * len(ids),
        "challenger_probability": [one for some in scores for one in some.challenger],
    }
    return pa.Table.from_pydict(columns, schema=SCHEMA)
