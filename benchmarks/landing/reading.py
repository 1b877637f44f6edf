"""How fast a day lands, and in how much memory, beside pyarrow that only reads the same file.

    python -m benchmarks.landing.reading --rows 10000000

A CSV and a Parquet file of simulated customers are written to a temporary folder, which is not
measured. Then each reader runs in a process of its own: pyarrow's streaming reader that only counts
rows, pyarrow reading the whole file into memory, and `ingest`, which reads, validates every cell,
finds customers that stand twice, and writes the accepted rows. All use one thread. The last case is
the same CSV file with one row in a thousand spoiled and one customer in a thousand standing twice.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import ratios

CHUNK_ROWS = 100_000
SPOILED_EVERY = 1_000
FILES = ("clean.csv", "clean.parquet", "spoiled.csv")


def main() -> None:
    """Make the files, measure each reader, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each file")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the files are made; by default the system's temporary folder",
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    ratios.add_option(parser)
    options = parser.parse_args()
    if options.make:
        make_files(options.make, options.rows)
        return
    if options.measure:
        reader, path = options.measure
        started = time.perf_counter()
        rows = READERS[reader](Path(path))
        seconds = time.perf_counter() - started
        print(rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        run(
            "--make", str(folder), "--rows", str(options.rows)
        )  # not in this process: a child's peak is at least its parent's
        print(f"{options.rows:,} rows of {columns()} columns")
        print(
            f"{'file':<16}{'size':>9}  "
            f"{'reader':<34}{'rows/s':>12}{'peak memory':>13}{'time':>9}{'against bare':>14}"
        )
        found = {}
        for file in (folder / name for name in FILES):
            bare = 0.0
            for reader in READERS:
                rows, seconds, peak = measured(reader, file)
                bare = bare or seconds
                size = f"{file.stat().st_size / 1e6:,.0f} MB"
                figures = (
                    f"{rows / seconds:>12,.0f}{peak / 1e6:>10,.0f} MB{seconds:>7,.1f} "
                    f"s{seconds / bare:>13.1f}x"
                )
                print(f"{file.name:<16}{size:>9}  {reader:<34}{figures}", flush=True)
            found[f"{file.name}, of pyarrow's reading"] = bare / seconds  # of the last, `ingest`
        ratios.write(options.ratios, found)


def columns() -> int:
    """Identifier and fields."""
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO

    return 1 + len(PORTFOLIO.fields)


def make_files(folder: Path, rows: int) -> None:
    """The same simulated customers as CSV and as Parquet, and as CSV with spoiled and repeated
    rows.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from creditrisk_assets.portfolio.uci_card import PORTFOLIO
    from creditrisk_assets.simulation.card_customers import simulate

    paths = [folder / name for name in FILES]
    with paths[0].open("wb") as clean, paths[2].open("wb") as spoiled:
        parquet = None
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            frame = simulate(count, seed=start, first_identifier=start + 1).drop(
                columns=PORTFOLIO.target
            )
            table = pa.Table.from_pandas(frame, preserve_index=False)
            parquet = parquet or pq.ParquetWriter(paths[1], table.schema)
            parquet.write_table(table)
            bad = frame.astype("str")
            bad.loc[::SPOILED_EVERY, "age"] = "unknown"
            if start:
                bad.loc[1::SPOILED_EVERY, PORTFOLIO.identifier] = "1"
            for file, content in (
                (clean, table),
                (spoiled, pa.Table.from_pandas(bad, preserve_index=False)),
            ):
                header = pyarrow.csv.WriteOptions(include_header=start == 0, quoting_style="none")
                pyarrow.csv.write_csv(content, file, header)
        if parquet is not None:
            parquet.close()


def measured(reader: str, file: Path) -> tuple[int, float, float]:
    """Rows, seconds and peak resident bytes of one reader in a process of its own."""
    rows, seconds, peak = run("--measure", reader, str(file)).split()
    return int(rows), float(seconds), float(peak)


def run(*arguments: str) -> str:
    """Output of this module in a process of its own, with one thread."""
    command = [sys.executable, "-m", "benchmarks.landing.reading", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def bare_stream(path: Path) -> int:
    """Pyarrow's streaming reader; nothing is done with the batches."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            return sum(batch.num_rows for batch in file.iter_batches(use_threads=False))
    options = pyarrow.csv.ReadOptions(use_threads=False)
    with pyarrow.csv.open_csv(path, read_options=options, convert_options=as_text(path)) as reader:
        return sum(batch.num_rows for batch in reader)


def bare_whole(path: Path) -> int:
    """Pyarrow reading everything into memory."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return int(pq.read_table(path, use_threads=False).num_rows)
    options = pyarrow.csv.ReadOptions(use_threads=False)
    return int(
        pyarrow.csv.read_csv(path, read_options=options, convert_options=as_text(path)).num_rows
    )


def as_text(path: Path) -> object:
    """Every column as text, as the landing zone reads CSV, so that a spoiled cell stops nobody."""
    import pyarrow as pa
    import pyarrow.csv

    with path.open() as file:
        names = file.readline().strip().split(",")
    return pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))


def ingested(path: Path) -> int:
    """The landing zone's own reader: everything validated, reconciled and written."""
    from creditrisk_assets.landing.ingestion import ingest
    from creditrisk_assets.portfolio.uci_card import PORTFOLIO

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        result = ingest([path], PORTFOLIO, PORTFOLIO.fields, Path(folder))
    assert all(file.holds for file in result.files)
    return result.rows_in


READERS: dict[str, Callable[[Path], int]] = {
    "pyarrow, counting in a stream": bare_stream,
    "pyarrow, all in memory": bare_whole,
    "ingest": ingested,
}


if __name__ == "__main__":
    main()
