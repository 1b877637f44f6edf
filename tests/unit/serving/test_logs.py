"""What the API's process logs: one line of JSON for each event, and never a key."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import serving
from serving.access.keys import create_key

ROOT = Path(str(serving.__file__)).parents[1]

CODE = """
import logging, sys, warnings
import structlog
from serving.ops.logs import configure_logs
key, form = sys.argv[1:]
early = structlog.get_logger("serving.made_before")
configure_logs(form or None)
early.info("request", path=f"/decisions/{key}", nested={"headers": [key.encode(), ("x", key)]}, key_id=key[3:15], status=401)
early.error("object", what=ValueError(f"bad {key[:40]}"))
logging.getLogger("uvicorn.error").info("Started %s", key)
logging.getLogger("uvicorn.access").info("127.0.0.1 - GET /?key=%s", key)
logging.getLogger("some.library").warning("with %(a)s", {"a": 1})
warnings.warn("old", DeprecationWarning)
try:
    customer = {"income": 4711}
    raise RuntimeError(f"inside {key}")
except RuntimeError:
    early.exception("failed")
"""


def lines_of(tmp_path: Path, form: str) -> tuple[str, str]:
    key = create_key(tmp_path / "keys.json", "bank", ["read"])
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", CODE, key, form],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return key, done.stdout


@pytest.mark.starts_processes
def test_everything_is_json_lines_and_no_line_holds_a_key(tmp_path: Path) -> None:
    key, text = lines_of(tmp_path, "")
    lines = [json.loads(line) for line in text.splitlines()]
    assert key[16:40] not in text
    assert [line["level"] for line in lines] == [
        "info",
        "error",
        "info",
        "warning",
        "warning",
        "error",
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["path"] == "/decisions/cr_(redacted)"
    assert lines[0]["nested"] == {"headers": ["cr_(redacted)", ["x", "cr_(redacted)"]]}
    assert lines[0]["key_id"] == key[3:15]
    assert lines[1]["what"] == "bad cr_(redacted)"
    assert (lines[2]["logger"], lines[2]["event"]) == ("uvicorn.error", "Started cr_(redacted)")
    assert lines[3]["event"] == "with 1"
    assert "DeprecationWarning: old" in lines[4]["event"]
    assert lines[5]["exception"][0]["exc_value"] == "inside cr_(redacted)"
    assert "4711" not in text


@pytest.mark.starts_processes
def test_people_get_text_without_keys_too(tmp_path: Path) -> None:
    key, text = lines_of(tmp_path, "console")
    assert "/decisions/cr_(redacted)" in text
    assert "RuntimeError: inside cr_(redacted)" in text
    assert key[16:40] not in text
