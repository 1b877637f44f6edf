"""Every form of file at every door: the page says what happens, and one value has one verdict everywhere."""

import pytest

from tests.support.doors import (
    BATCH,
    BATCH_ARROW,
    FORMS,
    HISTORY,
    LANDED,
    PAGE,
    SCORE,
    Verdict,
    measured,
    section_of,
    table_of,
)

LANDED_ALONE = {
    "X1 to X23 and Y without ID",  # a day's customers must be named, for their outcomes; the others' need not
    "customer_id for ID",
    "one empty identifier",
    "Parquet by pandas, two levels of column names",  # lacks the identifier among others
    "Parquet by pandas, ID as a range, which is in no column",
    "Excel called .xlsx",  # passed over by its name
    "CSV called .txt",
    "tabs called .tsv",
    "zip called .csv.zip",
    "Feather called .feather",
}
"""Forms that other doors may take otherwise than the landing zone does, each for its reason."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Verdict]]:
    return measured(tmp_path_factory.mktemp("doors"))


def test_the_page_says_what_happens_to_each_form_of_file(
    found: dict[str, dict[str, Verdict]],
) -> None:
    """`python -m tests.support.doors` writes it anew."""
    assert len(FORMS) >= 90
    assert section_of(PAGE.read_text(encoding="utf-8")) == table_of(found)


@pytest.mark.parametrize("form", FORMS)
def test_a_value_has_one_verdict_at_all_doors(
    found: dict[str, dict[str, Verdict]], form: str
) -> None:
    """The same records, bit for bit, and the same words about what is refused."""
    doors = found[form]
    batches = [
        doors[door]
        for door in (BATCH, BATCH_ARROW)
        if door in doors and doors[door].refusal is None
    ]
    assert all(batch == doors[SCORE] for batch in batches)
    if form in LANDED_ALONE:
        assert doors[LANDED] != doors[SCORE]
        return
    landed, scored = doors[LANDED], doors[SCORE]
    assert landed.records == scored.records
    assert "; ".join(landed.problems) == "; ".join(
        scored.problems
    )  # an entry for each cell, or a text for each row
    assert without_list(landed.refusal) == without_list(scored.refusal)
    if BATCH in doors:
        assert without_list(doors[BATCH].refusal) == without_list(scored.refusal)


def test_a_history_is_read_as_a_day_is_and_wants_the_outcome_besides(
    found: dict[str, dict[str, Verdict]],
) -> None:
    for form, doors in found.items():
        if form not in LANDED_ALONE and doors[HISTORY].refusal is None:
            assert set(doors[HISTORY].records) <= set(doors[LANDED].records), form
            assert set(doors[LANDED].problems) <= set(doors[HISTORY].problems), form


def without_list(refusal: str | None) -> str | None:
    """A refusal without the list of columns, for a day wants the identifier as well."""
    return (
        None
        if refusal is None
        else refusal.split("; valid: limit_bal")[0].split("; valid: id, limit_bal")[0]
    )


def test_forms_that_must_be_read_are_read_and_no_ambiguous_one_is(
    found: dict[str, dict[str, Verdict]],
) -> None:
    """The page could say anything; these rows of it are what users rely on."""
    everywhere = (
        "two header rows, X1 to X23 above the names",
        "X1 to X23 and Y with ID",
        "a remark of two lines, passed over",
        "Parquet, text as BINARY",
        "Parquet, UUIDs as UUID",
        "identifiers with leading zeros",
        "tabs",
    )
    for form in everywhere:
        for door, verdict in found[form].items():
            assert (len(verdict.records), verdict.problems, verdict.refusal) == (12, (), None), (
                form,
                door,
            )
    for form in (
        "one limit of 20.000",
        "one limit of 20,000",
        "identifiers rounded by a spreadsheet",
        "one identifier of 7.000",
    ):
        for door, verdict in found[form].items():
            assert (len(verdict.records), len(verdict.problems)) == (11, 1), (form, door)
