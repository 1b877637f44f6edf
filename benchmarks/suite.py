"""The benchmarks that compare the product with its peers, one after another: `make bench`, and
`make bench-full` for as many rows as the README's tables have.

It writes `benchmarks/results/<suite>.json`: the ratios of each benchmark, the machine and the
packages' versions. A ratio that is a quarter below the last accepted one fails the command, since a
new version of a package may be slower without a word (onnxruntime issue 27187). `--accept` makes
the ratios of this run the accepted ones.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
WORSE = 0.75
PACKAGES = ("numpy", "onnxruntime", "llvmlite", "pyarrow", "scikit-learn", "uvicorn", "mlflow")
SUITES: dict[str, dict[str, list[str]]] = {
    "short": {
        "scoring.compiled": ["--rounds", "5", "--proof-rows", "20000"],
        "scoring.bulk": ["--rows", "1000000", "--rounds", "2"],
        "landing.reading": ["--rows", "500000"],
        "serving.throughput": ["--rounds", "3", "--seconds", "4"],
    },
    "full": {
        "scoring.compiled": [],
        "scoring.bulk": ["--rows", "10000000", "--peers"],
        "landing.reading": ["--rows", "10000000"],
        "serving.throughput": ["--rounds", "5", "--seconds", "8", "--bentoml"],
    },
}


def main() -> None:
    """Run the suite; exit code 1 if a ratio is worse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="minutes become an hour")
    parser.add_argument("--accept", action="store_true", help="make the ratios the accepted ones")
    arguments = parser.parse_args()
    name = "full" if arguments.full else "short"
    ratios = {benchmark: run(benchmark, options) for benchmark, options in SUITES[name].items()}
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), "packages": packages(), "ratios": ratios}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    accepted = RESULTS / f"{name}-accepted.json"
    if arguments.accept:
        accepted.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    before = json.loads(accepted.read_text(encoding="utf-8"))["ratios"] if accepted.exists() else {}
    worse = compare(ratios, before)
    if worse:
        sys.exit(f"a quarter worse than accepted: {', '.join(worse)}")


def run(benchmark: str, options: list[str]) -> dict[str, float]:
    """Ratios of one benchmark, which prints its table."""
    print(f"\n## {benchmark} {' '.join(options)}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ratios.json")
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{benchmark}", *options]
        subprocess.run([*command, "--ratios", str(file)], check=True)
        found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return found


def compare(
    ratios: dict[str, dict[str, float]], accepted: dict[str, dict[str, float]]
) -> list[str]:
    """Print each ratio beside the accepted one, and return the names of those that are worse."""
    worse = []
    print("\n| benchmark | ratio | now | accepted |\n|---|---|---|---|")
    for benchmark, found in ratios.items():
        for name, value in found.items():
            before = accepted.get(benchmark, {}).get(name)
            shown = "none" if before is None else f"{before:.2f}"
            print(f"| {benchmark} | {name} | {value:.2f} | {shown} |")
            if before is not None and value < WORSE * before:
                worse.append(f"{benchmark}: {name} {value:.2f} of {before:.2f}")
    return worse


def machine() -> dict[str, Any]:
    """Facts of this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {
        "processor": processor or platform.processor(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def packages() -> dict[str, str]:
    """Versions of the packages that decide on speed."""
    return {name: version(name) for name in PACKAGES}


if __name__ == "__main__":
    main()
