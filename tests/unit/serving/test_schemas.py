"""What the API reads of a record: one meaning for each spelling, and the same one however it is read."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from creditrisk_assets.portfolio.contract import Feature, Field, Portfolio, Reason
from creditrisk_assets.portfolio.identifiers import VALID_IDENTIFIER, identifier_of
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from serving.http.problem_details import ContractProblems
from serving.http.schemas import RecordReader, request_model

MIXED = Portfolio(
    name="mixed",
    title="One field of each kind",
    identifier="account",
    target="bad",
    target_description="went bad",
    fields=(
        Field("amount", "how much", "EUR", 0, 1_000),
        Field("rate", "how dear", "%", 0, 99, decimal=True),
        Field("years", "how long", "years", 0, 60, required=False),
        Field("purpose", "for what", codes={"car": "a car", "home": "a home"}, required=False),
        Field("grade", "which", codes={-1: "none", 1: "one", 2: "two"}),
    ),
    protected=(),
    features=(Feature("amount"),),
    compute_features=lambda raw: raw[:, :1],
    performance_window_days=31,
    reasons=(Reason("R01", "any", ("amount", "rate", "years", "purpose", "grade")),),
)
READERS = {
    one.name: (RecordReader(one, request_model(one)), request_model(one), one)
    for one in (PORTFOLIO, MIXED)
}

values: st.SearchStrategy[Any] = st.one_of(
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from(
        [1.0, 2.0, -1.0, 0.5, "car", "home", " car", "1", True, False, None, "", [], {}, 1e308]
    ),
    st.text(max_size=5),
)


@given(data=st.data(), name=st.sampled_from(sorted(READERS)))
def test_a_record_is_read_as_the_request_model_reads_it_or_refused_as_it_refuses_it(
    data: st.DataObject, name: str
) -> None:
    """The quick way must never take what the model would refuse, nor understand it otherwise."""
    reader, model, portfolio = READERS[name]
    valid = {field.name: _valid(field) for field in portfolio.fields}
    changed = data.draw(
        st.dictionaries(
            st.sampled_from([*valid, portfolio.identifier, "stranger"]), values, max_size=3
        )
    )
    left_out = data.draw(st.sets(st.sampled_from(sorted(valid)), max_size=1))
    upper = data.draw(st.sets(st.sampled_from(sorted(valid)), max_size=2))
    record = {
        field: value for field, value in {**valid, **changed}.items() if field not in left_out
    }
    record = {field.upper() if field in upper else field: value for field, value in record.items()}
    wrong = _problems(model.model_validate, record)
    assert _problems(reader, record) == wrong
    if wrong:
        return
    expected: Any = model.model_validate(record).__dict__
    given_values = reader(record)
    identifier = expected.pop(portfolio.identifier)
    assert given_values.pop(portfolio.identifier, None) == identifier
    assert list(given_values) == portfolio.field_names
    assert given_values == expected
    assert [type(value) for value in given_values.values()] == [
        type(value) for value in expected.values()
    ]


def _problems(read: Callable[[Any], Any], record: Any) -> list[tuple[Any, str]]:
    try:
        read(record)
    except ValidationError as error:
        return [(one["loc"], one["msg"]) for one in error.errors()]
    return []


def _valid(field: Field) -> Any:
    if field.codes is not None:
        return next(iter(field.codes))
    return 0.5 if field.decimal else int(field.minimum or 0)


@pytest.mark.parametrize("identifier", ["4711", 4711, "a b", "ä-1", "x" * 100])
def test_an_identifier_is_a_plain_text(identifier: object) -> None:
    reader, _, portfolio = READERS["uci_card"]
    assert reader({**portfolio.example, "id": identifier})["id"] == str(identifier)
    assert reader({**portfolio.example, "ID": identifier})["id"] == str(identifier)


@pytest.mark.parametrize("identifier", [7.0, "7.0", "7", 7])
def test_an_identifier_is_the_same_customer_as_in_a_file(identifier: object) -> None:
    """Otherwise the outcome of 7.0 would be that of an unknown customer."""
    reader, _, portfolio = READERS["uci_card"]
    assert reader({**portfolio.example, "id": identifier})["id"] == "7"


@pytest.mark.parametrize("identifier", ["4.00000E+15", "1E+09", "20.000", '="0012"', 7.5, 2.0**60])
def test_an_identifier_that_files_ask_about_is_asked_about(identifier: object) -> None:
    reader, _, portfolio = READERS["uci_card"]
    with pytest.raises(ValueError, match=r".*") as refused:
        identifier_of(identifier)
    with pytest.raises(ValidationError) as error:
        reader({**portfolio.example, "id": identifier})
    (problem,) = ContractProblems(portfolio).of(error.value.errors(), may_read=True)
    assert (problem["field"], problem["problem"], problem["valid"]) == (
        "id",
        str(refused.value),
        VALID_IDENTIFIER,
    )


@pytest.mark.parametrize(
    "identifier", ["", " 4711", "a\nb", "x" * 101, True, 1.5, [], datetime.date(2026, 1, 1)]
)
def test_what_is_no_plain_text_is_no_identifier(identifier: object) -> None:
    """It becomes a cell of a file and a part of a log."""
    reader, _, portfolio = READERS["uci_card"]
    with pytest.raises(ValidationError):
        reader({**portfolio.example, "id": identifier})


@pytest.mark.parametrize("value", [False, True])
def test_false_is_no_code_though_it_equals_one(value: bool) -> None:
    """In Python false equals 0 and true equals 1; as JSON they are no numbers, and who sends them has made a mistake."""
    reader = RecordReader(PORTFOLIO, request_model(PORTFOLIO))
    for field in ("pay_6", "marriage"):
        with pytest.raises(ValidationError, match="not a number"):
            reader({**PORTFOLIO.example, field: value})
    assert reader({**PORTFOLIO.example, "pay_6": 2.0})["pay_6"] == 2
