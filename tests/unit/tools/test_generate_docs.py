"""The generated parts of the documents, and the comments of policy.toml, are those of the code."""

import shutil
from pathlib import Path

import pytest

from creditrisk_assets.policy import Policy
from tools import generate_docs


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the documents and of the policy, which the generator takes for the repository."""
    shutil.copytree(generate_docs.REPOSITORY / "docs", tmp_path / "docs")
    shutil.copy(generate_docs.REPOSITORY / "policy.toml", tmp_path)
    shutil.copy(generate_docs.REPOSITORY / ".env.example", tmp_path)
    monkeypatch.setattr(generate_docs, "REPOSITORY", tmp_path)
    return tmp_path


def test_the_documents_are_those_that_the_code_generates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`make docs` after a change of a setting, a limit or a check."""
    assert (generate_docs.main(check=True), capsys.readouterr().out) == (0, "")


def test_every_generated_part_stands_on_a_page() -> None:
    text = "".join(generate_docs.pages().values())
    assert {part[1] for part in generate_docs.PART.findall(text)} == set(generate_docs.PARTS)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        (
            "docs/guide/settings.md",
            "| `CREDITRISK_PORT` | `8000` |",
            "| `CREDITRISK_PORT` | `80` |",
        ),
        ("docs/guide/monitor.md", "| `no_run_hangs` | `champion` | look today |", "| |"),
        ("policy.toml", "# A larger PSI", "# A smaller PSI"),
        (".env.example", "# CREDITRISK_WORKERS=1\n", ""),
        ("policy.toml", "psi_limit = 1.0\n", ""),
    ],
)
def test_a_changed_page_is_found_and_made_anew(
    copy: Path, capsys: pytest.CaptureFixture[str], file: str, before: str, after: str
) -> None:
    generated = (copy / file).read_text()
    assert before in generated
    (copy / file).write_text(generated.replace(before, after))

    assert generate_docs.main(check=True) == 1
    assert capsys.readouterr().out == f"{file} differs\n"

    assert generate_docs.main(check=False) == 0
    assert (copy / file).read_text() == generated


def test_a_limit_of_the_policy_stays_as_it_is(copy: Path) -> None:
    """A user's limits are no fault of the documents."""
    file = copy / "policy.toml"
    file.write_text(file.read_text().replace("psi_limit = 1.0", "psi_limit = 0.5"))
    assert generate_docs.main(check=True) == 0
    assert Policy.read(file).gate.psi_limit == 0.5


def test_the_example_of_settings_sets_nothing_and_names_what_compose_sets() -> None:
    text = generate_docs.env_example()
    assert all(line.startswith("#") for line in text.splitlines() if line)
    compose = (generate_docs.REPOSITORY / "docker-compose.yml").read_text()
    for name in generate_docs.SET_BY_COMPOSE - {"CREDITRISK_HOST", "CREDITRISK_PORT"}:
        assert f"{name}:" in compose
    for port in ("API_PORT", "DAGSTER_PORT", "MLFLOW_PORT"):
        assert f"# {port}=" in text
        assert f"${{{port}:-" in compose
