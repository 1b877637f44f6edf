"""What the tests import: helpers live in tests/support, and every folder of tests stands alone."""

import ast
from pathlib import Path

from tests.support.places import REPOSITORY


def imported_modules(path: Path) -> set[str]:
    """The modules that a file names in its imports, at any depth; `from a import b` names a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_forbidden(module: str) -> bool:
    """Whether a test may not import this: a benchmark, another test, or a conftest."""
    parts = module.split(".")
    if parts[0] == "tests":
        return any(part == "conftest" or part.startswith("test_") for part in parts)
    return parts[0] == "benchmarks"


def test_no_test_imports_a_benchmark_or_another_test() -> None:
    """A helper that lives in a test file is found by nobody who looks for helpers."""
    found = {
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in (REPOSITORY / "tests").rglob("*.py")
        for module in imported_modules(path)
        if is_forbidden(module)
    }
    assert found == set()


def test_the_rule_sees_each_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "import benchmarks.serving.site\n"
        "def late():\n    from tests.unit import test_store\n"
        "from tests.integration.conftest import fresh\n"
        "from tests.support import loop\n"
    )
    assert {module for module in imported_modules(path) if is_forbidden(module)} == {
        "benchmarks.serving.site",
        "tests.unit.test_store",
        "tests.integration.conftest",
        "tests.integration.conftest.fresh",
    }
