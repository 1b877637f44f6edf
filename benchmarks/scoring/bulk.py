"""Scoring of a whole file beside its peers: `python -m benchmarks.scoring.bulk`.

Boosted trees of 20,000 simulated customers decide on a Parquet file of whole numbers, with
identifiers. Each rival runs in a process of its own: its CPU seconds, wall time and peak memory
count from its first row, without imports and compilation. The product reads, checks, decides and
writes, and compares every thousandth row with the graphs; what the others leave out is in the
table. `--peers` installs LightGBM and shap into a temporary folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import ratios
from benchmarks.scoring.compiled import bundle_of
from creditrisk_assets.modelling.datasets import history_set, with_features
from creditrisk_assets.modelling.selection import CANDIDATES
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from creditrisk_assets.scoring.bundle import CLASSIFIER, GRAPH, Bundle, ChampionRecord, load_bundle
from creditrisk_assets.scoring.runtime import Runtime
from creditrisk_assets.scoring.score_file import score_file
from creditrisk_assets.scoring.scorers import LocalScorer
from creditrisk_assets.simulation.card_customers import simulate

DISTINCT_ROWS = 500_000
"""Simulated customers; a longer file repeats them under other identifiers."""

CHUNK_ROWS = 4_096
TREES, LEAVES = 180, 12


@dataclass(frozen=True)
class Rival:
    """A way to score.

    Attributes:
        name: in the table.
        rows: most rows that it gets; fewer where it is slow.
        leaves_out: of reading, checks, reasons and writing.
        run: scores some rows of the file; called with a folder and the number of rows, gives the
            work to be measured.
        peer: True if it needs another package.
    """

    name: str
    rows: int
    leaves_out: str
    run: Callable[[Path, int], Callable[[], object]]
    peer: bool = False


def main() -> None:
    """Print a table of all rivals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="also LightGBM and shap")
    ratios.add_option(parser)
    parser.add_argument("--rival", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rival:
        measure(arguments.rival, arguments.folder, arguments.rows)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, arguments.rows)
        packages = install_peers(folder) if arguments.peers else ""
        seconds = compare(folder, arguments.rows, arguments.rounds, packages)
    pairs = {"PD": ("creditrisk, PD", "onnxruntime, PD")}
    pairs["reasons"] = ("creditrisk, reasons for all", "onnxruntime, reasons for all")
    pairs["reasons, of mlflow.pyfunc without"] = (pairs["reasons"][0], "mlflow.pyfunc in chunks")
    ratios.write(
        arguments.ratios,
        {name: seconds[peer] / seconds[ours] for name, (ours, peer) in pairs.items()},
    )


def prepare(folder: Path, rows: int) -> None:
    """Make the bundle, and the file `in.parquet`."""
    learning = history_set(with_features(simulate(20_000, 1), PORTFOLIO), PORTFOLIO)
    trees = CANDIDATES[-1]
    bundle = bundle_of(trees, learning, folder / "bundle")
    Runtime.compiled(bundle, bundle.manifest.rule, folder / "cache")
    fields = simulate(min(rows, DISTINCT_ROWS), 2)[PORTFOLIO.field_names]
    with pq.ParquetWriter(folder / "in.parquet", table_of(fields, 0).schema) as writer:
        for first in range(0, rows, len(fields)):
            writer.write_table(table_of(fields.head(rows - first), first))


def table_of(fields: pd.DataFrame, first: int) -> pa.Table:
    """Customers with identifiers."""
    identifiers = pa.array([f"c{first + place}" for place in range(len(fields))])
    table = pa.Table.from_pandas(fields, preserve_index=False)
    return table.add_column(0, PORTFOLIO.identifier, identifiers)


def install_peers(folder: Path) -> str:
    """Install the peers' packages, and return their folder."""
    uv = str(Path(sys.executable).with_name("uv"))
    target = folder / "peers"
    command = [uv, "pip", "install", "--quiet", "--target", str(target), "lightgbm", "shap"]
    subprocess.run([*command, "--python", sys.executable], check=True)
    return str(target)


def compare(folder: Path, rows: int, rounds: int, packages: str) -> dict[str, float]:
    """Measure all rivals in turn; the least CPU time of the rounds counts. Returns their CPU
    seconds a row.
    """
    found: dict[str, dict[str, float]] = {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), packages])}
    for _ in range(rounds):
        for rival in RIVALS:
            if rival.peer and not packages:
                continue
            count = min(rows, rival.rows)
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scoring.bulk"]
            command += ["--rival", rival.name, "--folder", str(folder)]
            output = subprocess.run(
                [*command, "--rows", str(count)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            result = json.loads(output.splitlines()[-1])
            before = found.setdefault(rival.name, result)
            found[rival.name] = {name: min(before[name], result[name]) for name in result}
    print(f"{rows:,} rows, {os.cpu_count()} processors, least of {rounds} rounds\n")
    print("| rival | leaves out | rows | ns of CPU a row | rows a CPU-second | wall | memory |")
    print("|---|---|---|---|---|---|---|")
    for rival in RIVALS:
        if rival.name in found:
            one = found[rival.name]
            count = min(rows, rival.rows)
            print(
                f"| {rival.name} | {rival.leaves_out} | {count:,} "
                f"| {1e9 * one['cpu'] / count:,.0f} | {count / one['cpu']:,.0f} "
                f"| {one['wall']:.1f} s | {one['memory']:,.0f} MiB |"
            )
    return {
        one.name: found[one.name]["cpu"] / min(rows, one.rows)
        for one in RIVALS
        if one.name in found
    }


def measure(name: str, folder: Path, rows: int) -> None:
    """Run one rival, and print its figures as JSON."""
    rival = next(one for one in RIVALS if one.name == name)
    work = rival.run(folder, rows)
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    memory = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(figures | {"memory": memory}))


def product(folder: Path, reasons: bool) -> Callable[[], object]:
    """`creditrisk score --decisions-only`, in this process."""
    bundle = load_bundle(str(folder / "bundle"))
    rule = bundle.manifest.rule
    champion = ChampionRecord(
        mlflow_uri="models:/credit_default/1",
        artifact_uri="bundle",
        model_version="1",
        bundle_sha256=bundle.sha256,
        verdict="first",
        reason="the only one",
        rule=rule,
    )
    runtime = Runtime.compiled(bundle, rule, folder / "cache")
    if runtime.kernel is None:
        raise RuntimeError(f"no compiled code: {runtime.reason}")
    scorer = LocalScorer(runtime, champion, reasons=reasons)
    return lambda: score_file(
        folder / "in.parquet",
        folder / "out.parquet",
        PORTFOLIO,
        scorer,
        lambda _done, _total: None,
        decisions_only=True,
    )


def in_memory(folder: Path, rows: int) -> tuple[Bundle, NDArray[np.float32]]:
    """The bundle, and the first rows as a matrix."""
    bundle = load_bundle(str(folder / "bundle"))
    frame = next(frames(folder, rows, rows))
    return bundle, np.ascontiguousarray(frame[PORTFOLIO.field_names].to_numpy(dtype=np.float32))


def frames(folder: Path, rows: int, chunk: int) -> Iterator[pd.DataFrame]:
    """The first rows of the file, as frames of some rows."""
    done = 0
    for batch in pq.ParquetFile(folder / "in.parquet").iter_batches(batch_size=chunk):
        if done >= rows:
            return
        yield batch.slice(0, rows - done).to_pandas()
        done += len(batch)


def bare_graph(folder: Path, rows: int) -> Callable[[], object]:
    """Onnxruntime over a matrix."""
    bundle, raw = in_memory(folder, rows)
    return lambda: [
        bundle.score(raw[first : first + CHUNK_ROWS]) for first in range(0, rows, CHUNK_ROWS)
    ]


def bare_reasons(folder: Path, rows: int) -> Callable[[], object]:
    """Onnxruntime with reasons over a matrix."""
    bundle, raw = in_memory(folder, rows)
    return lambda: bundle.decide(raw, bundle.manifest.rule)


def written(
    folder: Path, rows: int, predict: Callable[[NDArray[np.float32]], Any]
) -> Callable[[], object]:
    """Parquet to Parquet through frames of pandas."""

    def run() -> None:
        writer = None
        for frame in frames(folder, rows, 65_536):
            raw = frame[PORTFOLIO.field_names].to_numpy(dtype=np.float32)
            table = pa.table({"id": frame["id"], "default_probability": predict(raw)})
            writer = writer or pq.ParquetWriter(folder / "peer.parquet", table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    return run


def pyfunc(folder: Path, rows: int) -> Callable[[], object]:
    """The same graph as any MLflow client runs it."""
    import mlflow
    import onnx

    model = folder / "mlflow"
    if not model.exists():
        mlflow.onnx.save_model(onnx.load(str(folder / "bundle" / GRAPH)), str(model))
    loaded = mlflow.pyfunc.load_model(str(model))
    return written(folder, rows, lambda raw: np.ravel(loaded.predict(raw)["default_probability"]))


def features_of(raw: NDArray[np.float32]) -> NDArray[Any]:
    """The model's features of encoded rows."""
    return np.asarray(PORTFOLIO.compute_features(raw), dtype=np.float32)


def classifier_of(folder: Path) -> Any:
    """The fitted classifier of scikit-learn in the bundle."""
    import skops.io

    content = load_bundle(str(folder / "bundle")).document(CLASSIFIER)
    return skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))


def sklearn_trees(folder: Path, rows: int) -> Callable[[], object]:
    """scikit-learn's own prediction, features included."""
    classifier = classifier_of(folder)
    return written(folder, rows, lambda raw: classifier.predict_proba(features_of(raw))[:, 1])


def lightgbm_trees(folder: Path, rows: int) -> Callable[[], object]:
    """LightGBM's own prediction with as many trees and leaves, over a matrix of features."""
    import lightgbm

    customers = simulate(20_000, 1)
    raw = customers[PORTFOLIO.field_names].to_numpy(dtype=np.float32)
    settings = {"objective": "binary", "num_leaves": LEAVES, "verbose": -1, "num_threads": 1}
    data = lightgbm.Dataset(features_of(raw), customers[PORTFOLIO.target].to_numpy())
    trees = lightgbm.train(settings, data, num_boost_round=TREES)
    features = features_of(in_memory(folder, rows)[1])
    return lambda: trees.predict(features, num_threads=1)


def shap_values(folder: Path, rows: int) -> Callable[[], object]:
    """Shap's TreeExplainer of the classifier, for each feature, over a matrix of features."""
    import shap  # type: ignore[import-not-found]  # installed into a folder of its own

    explainer = shap.TreeExplainer(classifier_of(folder))
    features = features_of(in_memory(folder, rows)[1])
    return lambda: explainer.shap_values(features)


MANY = 1 << 40
NO_FILE = "reading, checks, writing"
RIVALS = (
    Rival("creditrisk, PD", MANY, "reasons", lambda folder, _: product(folder, False)),
    Rival("creditrisk, reasons for all", MANY, "", lambda folder, _: product(folder, True)),
    Rival("onnxruntime, PD", 500_000, f"{NO_FILE}, reasons", bare_graph),
    Rival("onnxruntime, reasons for all", 50_000, NO_FILE, bare_reasons),
    Rival("mlflow.pyfunc in chunks", 200_000, "checks, reasons", pyfunc),
    Rival("scikit-learn in chunks", 200_000, "checks, reasons, calibration", sklearn_trees),
    Rival(
        "LightGBM", 500_000, f"{NO_FILE}, features, reasons, calibration", lightgbm_trees, peer=True
    ),
    Rival("shap, TreeExplainer", 10_000, f"{NO_FILE}, features, PD", shap_values, peer=True),
)


if __name__ == "__main__":
    main()
