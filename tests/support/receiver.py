"""A receiver of alerts as a process of its own: `python -m tests.support.receiver PORT LOG SCRIPT ANSWER`.

SCRIPT is a comma-separated list of what it answers, one request after the other: a status, `429:3` with Retry-After, `hang`, or
`drop`; when it is through, 200. ANSWER is the body of each answer. Each request is appended to LOG as a line of JSON.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.places import REPOSITORY
from tests.support.waiting import until


@contextlib.contextmanager
def receiver(
    folder: Path,
    script: str = "",
    port: int | None = None,
    answer: str = "",
    name: str = "received",
) -> Iterator[tuple[str, Path]]:
    """A receiver; its address and the file of what it was sent."""
    # The receiver itself needs none of it, and the import takes seconds.
    from creditrisk_assets.simulation.processes import reserved_ports

    port = port or reserved_ports(1)[0]
    log = folder / f"{name}.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.receiver", str(port), str(log), script, answer],
        cwd=REPOSITORY,
        start_new_session=True,
    )
    try:

        def listens() -> bool:
            assert process.poll() is None
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until(listens, 30)
        yield f"http://127.0.0.1:{port}/hook?token=hidden", log
    finally:
        process.kill()
        process.wait()


def received(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def main() -> None:
    port, log, script = (
        int(sys.argv[1]),
        Path(sys.argv[2]),
        [one for one in sys.argv[3].split(",") if one],
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = script.pop(0) if script else "200"
            status, _, patience = answer.partition(":")
            line = {
                "body": body,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "answer": answer,
            }
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if status == "hang":
                time.sleep(60)
            if status in ("hang", "drop"):
                self.close_connection = True
                return
            self.send_response(int(status))
            if patience:
                self.send_header("Retry-After", patience)
            content = sys.argv[4].encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
