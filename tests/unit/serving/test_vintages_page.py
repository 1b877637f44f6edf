"""Vintages show what was known at each age, and nothing that could not be known."""

from creditrisk_assets.monitoring.day_documents import Maturing, OutcomesDocument
from serving.pages.vintages_page import AGES, Cell, vintages_of


def day(name: str, *known: tuple[str, int, int], decisions: int = 100) -> OutcomesDocument:
    return OutcomesDocument(
        day=name,
        model_version="1",
        decisions=decisions,
        matured=known[-1][1] if known else 0,
        pending=0,
        missing=0,
        rows=0,
        bads=0,
        maturing=tuple(Maturing(latest_day=at, matured=n, bads=bads) for at, n, bads in known),
    )


def at(cells: tuple[Cell | None, ...], age: int) -> Cell | None:
    return cells[AGES.index(age)]


def test_a_cell_is_what_was_known_at_its_age() -> None:
    (vintage,) = vintages_of(
        [day("2026-05-01", ("2026-05-04", 40, 10), ("2026-05-20", 90, 20))], "2026-06-05"
    )
    assert at(vintage.cells, 1) == Cell(1, 0, 0)
    assert at(vintage.cells, 3) == Cell(3, 40, 10)
    assert at(vintage.cells, 14) == Cell(14, 40, 10)
    assert at(vintage.cells, 30) == Cell(30, 90, 20)
    assert at(vintage.cells, 60) is None  # the data end on the 35th day


def test_many_days_are_vintages_of_months_that_reach_an_age_together() -> None:
    days = [
        day(f"2026-04-{number:02d}", (f"2026-05-{number:02d}", 50, 5)) for number in range(1, 31)
    ] + [day(f"2026-05-{number:02d}") for number in range(1, 6)]
    newer, older = vintages_of(days, "2026-06-01")
    assert (newer.name, newer.decisions) == ("2026-05", 500)
    assert (older.name, older.decisions) == ("2026-04", 3_000)
    assert at(older.cells, 30) == Cell(30, 1_500, 150)
    assert at(older.cells, 60) is None
    assert at(newer.cells, 14) == Cell(14, 0, 0)
    assert at(newer.cells, 14).bad_rate is None  # type: ignore[union-attr]
