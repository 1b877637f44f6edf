"""The documents: their links, commands, paths, settings and pictures, compared with the repository."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml  # type: ignore[import-untyped]

from creditrisk_assets.settings import ServingSettings, Settings
from tests.support.places import REPOSITORY

README_LINES = 150
"""A page that a reader finishes."""

MODULES_OF_A_REQUEST = 12
"""The longest way of a request that the architecture may have."""

TEXT = (".md", ".py", ".yml", ".yaml", ".toml", ".json", ".html", ".js", "Makefile", "Dockerfile")
"""Ends of the names of files that may name a setting."""

TEMPLATES = "creditrisk_assets/governance/templates/"
"""Markdown there is a template of model cards and no document."""

FENCED = re.compile(r"^(```+)[^\n]*\n(.*?)^\1[ ]*$", flags=re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s+(\S+)", flags=re.MULTILINE)
HTML = re.compile(r"<(?:a|img)\s[^>]*?(?:href|src)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", flags=re.MULTILINE)


@cache
def files() -> frozenset[str]:
    """Every file of the repository, and every folder that holds one."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    present = [name for name in listed if (REPOSITORY / name).exists()]
    folders = {str(folder) for name in present for folder in Path(name).parents}
    return frozenset(present) | folders


def documents() -> list[str]:
    return sorted(
        name for name in files() if name.endswith(".md") and not name.startswith(TEMPLATES)
    )


def guides() -> list[str]:
    """The pages that tell a reader what to type."""
    return [name for name in documents() if name == "README.md" or name.startswith("docs/guide/")]


@cache
def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def prose_of(name: str) -> str:
    """A document without its code, in which brackets are no links."""
    return SPAN.sub("", FENCED.sub("", text_of(name)))


def links_of(name: str) -> list[str]:
    prose = prose_of(name)
    found = [link for kind in (LINK, REFERENCE, HTML) for link in kind.findall(prose)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@cache
def anchors_of(name: str) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a document."""
    anchors: dict[str, int] = {}
    for heading in HEADING.findall(FENCED.sub("", text_of(name))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number = anchors.get(anchor, 0)
        anchors[anchor] = number + 1
        if number:
            anchors[f"{anchor}-{number}"] = 1
    return frozenset(anchors)


def broken(name: str, link: str) -> str | None:
    """The fault of a link, or None."""
    target, _, anchor = link.partition("#")
    path = name
    if target:
        absolute = (REPOSITORY / name).parent / target
        path = str(absolute.resolve().relative_to(REPOSITORY.resolve()))
        if path not in files():
            return f"{name}: {link} leads to no file of the repository"
    if anchor and path.endswith(".md") and anchor not in anchors_of(path):
        return f"{name}: {link} leads to no heading; valid: {', '.join(sorted(anchors_of(path)))}"
    return None


@pytest.mark.parametrize("name", documents())
def test_every_relative_link_leads_to_a_file_and_a_heading(name: str) -> None:
    assert [fault for link in links_of(name) if (fault := broken(name, link))] == []


def test_the_link_check_finds_links_and_names_their_faults() -> None:
    assert "docs/architecture.md" in links_of("README.md")
    assert broken("README.md", "docs/architecture.md#the-rooms") is None
    assert broken("README.md", "docs/absent.md") is not None
    assert broken("README.md", "docs/architecture.md#absent") is not None


def cells_of(row: str) -> list[str]:
    """The cells of a row; a bar behind a backslash is text."""
    return re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))


def faults_of_tables(text: str) -> list[str]:
    """Rows without a header, and rows with more or fewer cells than their header."""
    lines = FENCED.sub("", text).splitlines()
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("|"):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    faults = []
    for block in filter(None, blocks):
        if len(block) < 3 or not re.fullmatch(r"\|( *:?-+:? *\|)+", block[1]):
            faults.append(f"no header, or no row: {block[0]}")
            continue
        width = len(cells_of(block[0]))
        faults += [row for row in block[1:] if len(cells_of(row)) != width]
    return faults


@pytest.mark.parametrize("name", documents())
def test_every_row_of_a_table_has_a_header_and_as_many_cells(name: str) -> None:
    """A blank line within a table makes text of the rows behind it."""
    assert faults_of_tables(text_of(name)) == []


def test_the_table_check_finds_lost_rows_and_lost_cells() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 \\| 3 |\n"
    assert faults_of_tables(table) == []
    assert faults_of_tables(table + "\n| 4 | 5 |\n") == ["no header, or no row: | 4 | 5 |"]
    assert faults_of_tables(table + "| 4 |\n") == ["| 4 |"]


def command_lines(name: str, spans: bool) -> Iterator[list[str]]:
    """The words of each command line in a document's code, comments left out."""
    text = text_of(name)
    blocks = [block for _, block in FENCED.findall(text)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    if spans:
        lines += SPAN.findall(FENCED.sub("", text))
    for line in lines:
        try:
            yield shlex.split(line, comments=True)
        except ValueError:  # a quotation over several lines, such as the body of a request
            continue


def unknown_part(words: list[str]) -> str | None:
    """The first word after `creditrisk` that the command line does not know, or None."""
    command: Any = COMMAND
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("-"):
            if name not in {option for parameter in command.params for option in parameter.opts}:
                return word
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return None


def command_of_the_project() -> typer.core.TyperGroup:
    from creditrisk_assets.cli.main import app

    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    return command


COMMAND = command_of_the_project()


def creditrisk_commands(name: str) -> list[list[str]]:
    return [
        words[words.index("creditrisk") + 1 :]
        for words in command_lines(name, spans=True)
        if "creditrisk" in words[:-1]
    ]


@pytest.mark.parametrize("name", guides())
def test_every_creditrisk_command_of_a_guide_exists_with_its_options(name: str) -> None:
    unknown = [
        f"creditrisk {shlex.join(words)}: {part}"
        for words in creditrisk_commands(name)
        if (part := unknown_part(words))
    ]
    assert unknown == []


def test_the_command_check_finds_commands_and_names_unknown_parts() -> None:
    assert ["keys", "revoke", "scoring", "--key", "0a1b2c3d4e5f"] in creditrisk_commands(
        "docs/guide/deploy.md"
    )
    assert unknown_part(["champion", "rollback", "3", "--why", "a merger"]) is None
    assert unknown_part(["champion", "crown"]) == "crown"
    assert unknown_part(["status", "--jason"]) == "--jason"


def make_targets(name: str) -> set[str]:
    found = set()
    for words in command_lines(name, spans=True):
        rest = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if len(rest) > 1 and rest[0] == "make":
            found |= set(rest[1:])
    return found


@pytest.mark.parametrize("name", documents())
def test_every_make_target_of_a_document_is_in_the_makefile(name: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert make_targets(name) <= targets


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    assert len(text_of("README.md").splitlines()) <= README_LINES
    assert {"demo", "test"} <= make_targets("README.md")


def known_settings() -> set[str]:
    models = (Settings, ServingSettings)
    names = {name.upper() for model in models for name in model.model_fields}
    return {f"CREDITRISK_{name}" for name in names - {"MLFLOW_TRACKING_URI"}}


def settings_of(name: str) -> set[str]:
    found = set(re.findall(r"CREDITRISK_[A-Z_]*[A-Z]\b(?!_)", text_of(name)))
    return {name for name in found if not name.startswith("CREDITRISK_TEST_")}


def test_every_setting_is_on_the_settings_page() -> None:
    """A setting that is not documented cannot be found."""
    assert known_settings() - settings_of("docs/guide/settings.md") == set()


def test_every_setting_that_a_file_names_exists() -> None:
    """In documents, messages, and the files that start processes; tests name wrong ones too."""
    unknown = {
        name: sorted(absent)
        for name in sorted(files())
        if not name.startswith("tests/")
        and name.endswith(TEXT)
        and (absent := settings_of(name) - known_settings())
    }
    assert unknown == {}


def paths_of(name: str) -> set[str]:
    """The paths of code that a document names."""
    spans = SPAN.findall(FENCED.sub("", text_of(name)))
    starts = r"(?:creditrisk_assets|serving|tests|benchmarks|deploy|docs)/[\w./-]+"
    modules = r"[a-z_]+/[\w/]+\.py"
    return {span for span in spans if re.fullmatch(f"{starts}|{modules}", span)}


@pytest.mark.parametrize(
    "name",
    [name for name in documents() if not name.startswith("docs/decisions/")],
)
def test_every_path_of_code_that_a_document_names_is_there(name: str) -> None:
    absent = {
        path
        for path in paths_of(name)
        if not {path.rstrip("/"), f"creditrisk_assets/{path}"} & files()
    }
    assert absent == set()


def section_of(name: str, heading: str) -> str:
    return text_of(name).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_picture_of_the_data_is_the_asset_graph() -> None:
    from creditrisk_assets.definitions import ASSETS

    graph = {
        (parent.to_user_string(), asset.key.to_user_string())
        for asset in ASSETS
        for parent in asset.asset_deps[asset.key]
    }
    picture = section_of("docs/architecture.md", "The way of the data")
    chains = [
        line.strip().split(" --> ") for line in picture.splitlines() if re.search(r" --> ", line)
    ]
    drawn = {pair for chain in chains for pair in pairwise(chain)}
    assert drawn == graph


def test_the_way_of_a_request_has_at_most_twelve_modules_and_they_exist() -> None:
    """A reader follows one request from end to end; a longer way is a fault of the code."""
    way = section_of("docs/architecture.md", "The way of one `POST /predict`")
    entries = re.findall(r"^(\d+)\. (.*)$", way, flags=re.MULTILINE)
    modules = [match[1] for _, text in entries if (match := re.match(r"`([\w/]+\.py)`: ", text))]
    assert [int(number) for number, _ in entries] == list(range(1, len(modules) + 1))
    assert 0 < len(modules) == len(set(modules)) <= MODULES_OF_A_REQUEST
    assert set(modules) <= files()


@pytest.mark.parametrize("package", ["creditrisk_assets", "serving"])
def test_the_rooms_of_the_architecture_are_those_of_the_import_contracts(package: str) -> None:
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one.get("containers") == [package]]
    table = section_of("docs/architecture.md", "The rooms").split(f"`{package}`, from the top", 1)[
        1
    ]
    rows = re.findall(r"^\| (`.*?`) \|", table.split("\n\n", 2)[1], flags=re.MULTILINE)
    assert [" | ".join(SPAN.findall(row)) for row in rows] == layers


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in files()
        if name == "CITATION.cff" or (name.startswith(".github/") and name.endswith(".yml"))
    ),
)
def test_every_repository_file_in_yaml_can_be_read(name: str) -> None:
    assert isinstance(yaml.safe_load(text_of(name)), dict)


def test_the_citation_has_the_version_and_the_license_of_the_package() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
