"""The workflows: actions pinned by hash, shell that can be read, and a release whose every part has its provenance."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.places import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def steps_of(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_hash_and_names_its_version(workflow: Path) -> None:
    """A tag can be moved to other code."""
    lines = [line.strip(" -") for line in workflow.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


@pytest.mark.starts_processes
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_shell_of_every_step_can_be_read(workflow: Path) -> None:
    for step in steps_of(workflow):
        if "run" in step:
            done = subprocess.run(
                ["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, f"{step['run']} {done.stderr}"


def test_files_images_and_chart_of_a_release_have_their_provenance() -> None:
    steps = steps_of(REPOSITORY / ".github" / "workflows" / "release.yml")
    attested = [step["with"] for step in steps if "attest-build-provenance" in step.get("uses", "")]
    files = [one["subject-path"] for one in attested if "subject-path" in one]
    assert files == ["dist/*"]
    pushed = {
        one["subject-name"]: one["subject-digest"] for one in attested if "subject-name" in one
    }
    assert pushed == {
        f"${{{{ env.REGISTRY }}}}/{name}": f"${{{{ steps.pushed.outputs.{output} }}}}"
        for name, output in (
            ("serving", "serving"),
            ("dagster", "dagster"),
            ("charts/creditrisk", "chart"),
        )
    }
    assert "gh release create" in steps[-1]["run"]  # when all of it is there
