"""Generates the parts of the documents that the code knows: `python -m tools.generate_docs`.

A page holds such a part between `<!-- generated: NAME -->` and `<!-- end -->`. With `--check`
nothing is written, and a part that differs ends the command with exit code 1.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from creditrisk_assets.monitoring.check_catalogue import WATCHES

REPOSITORY = Path(__file__).parent.parent
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def checks() -> str:
    """The catalogue of checks."""
    header = ("check", "on", "tier", "question", "when it fails", "what to do")
    rows = [
        (
            f"`{watch.check}`",
            f"`{watch.asset}`",
            watch.tier.value,
            watch.question,
            watch.failure,
            watch.action,
        )
        for watch in WATCHES
    ]
    return table(header, rows)


PARTS: dict[str, Callable[[], str]] = {"checks": checks}


def generated(text: str) -> str:
    """A page with its generated parts made anew."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)


def pages() -> list[Path]:
    """The pages that have such parts."""
    every = sorted((REPOSITORY / "docs").rglob("*.md"))
    return [page for page in every if PART.search(page.read_text(encoding="utf-8"))]


def main(check: bool) -> int:
    """Write the pages, or compare them; the exit code."""
    different = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = generated(old)
        if new != old:
            different.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    for page in different:
        sys.stdout.write(f"{page.relative_to(REPOSITORY)} {'differs' if check else 'written'}\n")
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
