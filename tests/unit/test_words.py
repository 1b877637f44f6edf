"""The words: the table in CONTRIBUTING.md, compared with names, texts and docstrings of the product.

Add a word to `GONE`, a module's name to `GONE_MODULES` or a package to `PLAIN` once it holds.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY

GONE = (
    "night",
    "nightly",
    "evening",
    "evening run",
    "watchman",
    "watch_list",
    "loop_watch",
    "cli_watch",
    "zone_memory",
    "glimpse",
    "keeper",
    "companion",
    "perimeter",
    "courtesy",
    "reference_population",
    "Watcher",
    "PastRecord",
    "contender",
    "said",
    "proven",
    "kept",
    "hear",
    "in_force_of",
    "strangers",
    "watched",
    "watching",
    "last_known",
    "stepping",
)
"""Words of the table that no product file has any more, as a word or as a part of a name."""

GONE_MODULES = (
    *("watching", "watched", "watch_list", "loop_watch", "cli_watch", "watchman"),
    *("moves", "estimates", "windows", "recovery", "events", "zones"),
    *("view", "zone_memory", "repeats", "reading", "glimpse", "strangers"),
    *("site", "stepping", "reference_population"),
    *("live", "segments", "keeper", "companion", "reader", "published", "last_known"),
    *("perimeter", "routes", "problems", "documentation", "documents", "look_up"),
    *("telemetry", "courtesy"),
)
"""Words of the table that no module of the two packages has for a name."""

PLAIN = (
    *("portfolio", "landing", "scoring", "decisions", "modelling", "monitoring", "governance"),
    *("simulation", "cli", "settings", "policy", "registry", "store", "storage", "job_runner"),
    *("defs", "definitions", "serving", "benchmarks", "tools"),
)
"""Rooms of creditrisk_assets, or whole packages, whose docstrings begin with no unnamed subject, and
whose names are no bare participles.
"""

PARTICIPLES = ("told", "kept", "proven", "said", "seen", "asked", "wanted", "taken", "given")
FIELDS = {"given"}
"""The field of an answer to /what-if; its name is part of the API."""
PACKAGES = ("creditrisk_assets", "serving", "benchmarks", "tools")
TEXT = (".py", ".md", ".toml", ".html", ".js", ".css", ".svg", ".json")
SUBJECTS = ("who", "whoever", "somebody", "nobody", "what", "whatever")
QUESTIONS = ("one", "why", "how", "where", "which", "whether")
PLAIN_WITHOUT_QUESTIONS = (
    *("defs", "definitions", "decisions", "cli", "settings", "policy", "registry", "store"),
    *("storage", "job_runner", "serving"),
)
"""Rooms whose docstrings begin with no question word either."""

ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", flags=re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


@cache
def product_files() -> tuple[str, ...]:
    """Every file of the product that holds text, by its path in the repository."""
    found = [
        *(
            file
            for folder in (*PACKAGES, "docs/guide")
            for file in (REPOSITORY / folder).rglob("*")
        ),
        *REPOSITORY.glob("*.toml"),
        REPOSITORY / "README.md",
    ]
    return tuple(sorted(str(file.relative_to(REPOSITORY)) for file in found if file.suffix in TEXT))


def code_files() -> list[str]:
    return [name for name in product_files() if name.endswith(".py")]


def rows_of_the_table() -> list[tuple[str, str, str]]:
    """The rows: the words, their replacement, the reason."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    header, *rows = ROW.findall(text.split("\n## Words\n", 1)[1].split("\n## ", 1)[0])
    assert header == ("not", "but", "why")
    return rows


def words_of_the_table() -> list[str]:
    return [word for words, _, _ in rows_of_the_table() for word in SPAN.findall(words)]


def pattern_of(word: str) -> re.Pattern[str]:
    """The word by itself or as a part of a name, in any spelling of names, and its plural."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z]+", word)]
    return re.compile(rf"(?<![a-z]){'[ _-]?'.join(parts)}s?(?![a-z])")


def in_parts(text: str) -> str:
    """A text in small letters in which names such as `EveningRun` have their parts separated."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()


def docstrings_of(code: str) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes, functions and constants, with their lines."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def names_of(code: str) -> Iterator[tuple[int, str]]:
    """Names of functions, classes, arguments, fields and variables, with their lines."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
            ):
                yield node.lineno, name


def first_word(text: str) -> str:
    found = re.search(r"\w+", text)
    return found[0].lower() if found else ""


def room_of(name: str) -> str:
    """The room of a file: below creditrisk_assets the next name, elsewhere the package."""
    parts = Path(name).with_suffix("").parts
    return parts[1] if parts[0] == "creditrisk_assets" else parts[0]


def test_the_table_names_each_word_once_and_can_be_read_by_a_parser() -> None:
    rows = rows_of_the_table()
    assert len(rows) > 10
    assert [
        words for words, _, _ in rows if not re.fullmatch(r"`[^`|]+`(, `[^`|]+`)*", words)
    ] == []
    assert sorted(words_of_the_table()) == sorted({*words_of_the_table()})


def test_every_word_that_is_held_is_in_the_table() -> None:
    assert {*GONE, *GONE_MODULES} - {*words_of_the_table()} == set()


@pytest.mark.parametrize("word", GONE)
def test_a_word_that_is_gone_stays_away(word: str) -> None:
    pattern = pattern_of(word)
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in product_files()
        for number, line in enumerate(
            (REPOSITORY / name).read_text(encoding="utf-8").splitlines(), start=1
        )
        if pattern.search(in_parts(line))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("night", "one night after another"),
        ("night", "for night_of_data in nights:"),
        ("night", "class NightRun:"),
        ("watch_list", "the watch list"),
        ("watch_list", "from monitoring.watch_list import WATCHES"),
        ("watch_list", "class WatchList:"),
        ("companion", "COMPANIONS = ()"),
    ],
)
def test_the_search_finds_a_word_in_texts_and_names(word: str, text: str) -> None:
    assert pattern_of(word).search(in_parts(text))


@pytest.mark.parametrize(
    ("word", "text"),
    [("night", "a fortnight"), ("watch_list", "watch listeners"), ("keeper", "bookkeeper")],
)
def test_the_search_leaves_other_words_alone(word: str, text: str) -> None:
    assert pattern_of(word).search(in_parts(text)) is None


def test_no_module_has_a_name_that_is_gone() -> None:
    modules = [name for name in code_files() if name.startswith(("creditrisk_assets/", "serving/"))]
    assert [name for name in modules if Path(name).stem in GONE_MODULES] == []


@pytest.mark.parametrize("room", PLAIN)
def test_no_docstring_of_a_room_begins_with_an_unnamed_subject(room: str) -> None:
    """Who, whoever, somebody, nobody, what and whatever make a riddle of the first sentence."""
    of_room = [name for name in code_files() if room_of(name) == room]
    assert of_room, f"{room} is no room; valid: {', '.join(sorted({*map(room_of, code_files())}))}"
    found = [
        f"{name}:{line}: {text.strip().splitlines()[0]}"
        for name in of_room
        for line, text in docstrings_of((REPOSITORY / name).read_text(encoding="utf-8"))
        if first_word(text) in SUBJECTS
    ]
    assert found == []


@pytest.mark.parametrize("room", PLAIN_WITHOUT_QUESTIONS)
def test_no_docstring_of_a_room_begins_with_a_question_word(room: str) -> None:
    """Dagster shows the docstrings of assets, checks and sensors as their descriptions."""
    found = [
        f"{name}:{line}: {text.strip().splitlines()[0]}"
        for name in code_files()
        if room_of(name) == room
        for line, text in docstrings_of((REPOSITORY / name).read_text(encoding="utf-8"))
        if first_word(text) in QUESTIONS
    ]
    assert found == []


@pytest.mark.parametrize("room", PLAIN)
def test_no_name_of_a_room_is_a_bare_participle(room: str) -> None:
    """`told` may be a callback, a message, a count or an answer."""
    found = [
        f"{name}:{line}: {word}"
        for name in code_files()
        if room_of(name) == room
        for line, word in names_of((REPOSITORY / name).read_text(encoding="utf-8"))
        if word.strip("_").lower() in PARTICIPLES and not (room == "serving" and word in FIELDS)
    ]
    assert found == []


def test_the_check_of_names_reads_all_kinds_of_them() -> None:
    code = "class Told:\n    kept: int\n    def said(self, asked):\n        self.seen = given = 1\n"
    assert {name.lower() for _, name in names_of(code)} - {"self"} == {
        *("told", "kept", "said", "asked", "seen", "given")
    }


def test_the_check_of_docstrings_reads_those_of_constants_too() -> None:
    code = '"""What."""\nX = 1\n"""Who."""\ndef f():\n    """Does."""\n'
    assert [first_word(text) for _, text in docstrings_of(code)] == ["what", "who", "does"]
