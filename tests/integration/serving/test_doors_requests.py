"""Every form of request: the page says what is answered, and one record has one verdict in whichever way it comes."""

import json
import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.routing import Mount, Route

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from serving.http.batch_formats import JSON
from serving.http.problem_details import ContractProblems
from serving.http.schemas import request_model
from tests.support.doors import PAGE
from tests.support.doors_requests import (
    BODIES,
    ELEMENT,
    FORMS,
    LINE,
    MANY,
    ONE,
    PREDICT,
    RECORDS,
    REQUESTS,
    ROW,
    TRIAL,
    Door,
    Sent,
    Verdict,
    measured,
    one,
    opened,
    section_of,
    table_of,
)
from tests.support.servers import every_route, fastapi_of

IGNORED = "a table may have columns that the contract does not have; an object with a name that is not known is a mistake"
TEXT = "a JSON value has a type, and text is no number; a cell has only text"
NAME = "a cell has only text, and this text names a customer"
CELL_OTHERWISE = {
    "an unknown field with a name that is near (pay_1)": IGNORED,
    "an unknown field with a name that is not near (branch)": IGNORED,
    "the target is there": IGNORED,
    'a number as text (limit_bal "20000")': TEXT,
    "identifier: a number with a fraction (id 7.5)": NAME,
    "identifier: a number above 2^53 with a point (id 12345678901234567890.0)": "a cell has all digits",
    'identifier: a text with spaces around it (id " 7 ")': "spaces around cells are passed over",
    'identifier: an empty text (id "")': "an empty cell is a missing value, as null is, and the identifier may be missing",
    "identifier: true": NAME,
}
"""Records that JSON refuses and CSV takes, each for its reason."""

LIVE_LENGTH = {"/metrics"}
"""Whose content is another at each call."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("doors")) as door:
        yield door


@pytest.fixture(scope="module")
def found(door: Door) -> dict[str, dict[str, Verdict]]:
    return measured(door)


def test_the_page_says_what_is_answered_to_each_form_of_request(
    found: dict[str, dict[str, Verdict]],
) -> None:
    """`python -m tests.support.doors_requests` writes it anew."""
    assert len(FORMS) == len({*FORMS}) >= 60
    assert section_of(PAGE.read_text(encoding="utf-8")) == table_of(found)


@pytest.mark.parametrize("form", RECORDS)
def test_a_record_has_one_verdict_alone_tried_and_in_a_batch(
    found: dict[str, dict[str, Verdict]], form: str
) -> None:
    """The same PD, or the same words about the same fields."""
    ways = found[form]
    assert (
        ways[PREDICT].outcome == ways[TRIAL].outcome == ways[ELEMENT].outcome == ways[LINE].outcome
    )
    assert (ways[PREDICT].status == 200) == (ways[PREDICT].probability is not None)
    assert ways[PREDICT].status == ways[TRIAL].status
    assert ways[PREDICT].status in (200, 400, 422)


@pytest.mark.parametrize(
    "form", [form for form, record in RECORDS.items() if record.row is not None]
)
def test_a_cell_is_taken_where_the_same_value_is(
    found: dict[str, dict[str, Verdict]], form: str
) -> None:
    """Or there is a reason why a table is read otherwise."""
    alone, row = found[form][PREDICT], found[form][ROW]
    if form in CELL_OTHERWISE:
        assert alone.probability is None
        assert row.probability is not None
        return
    assert alone.probability == row.probability


def test_every_exception_is_a_form(found: dict[str, dict[str, Verdict]]) -> None:
    assert {*CELL_OTHERWISE} <= {form for form, ways in found.items() if ROW in ways}


@pytest.mark.parametrize("form", BODIES)
def test_a_body_that_is_no_record_is_accepted_nowhere(
    found: dict[str, dict[str, Verdict]], form: str
) -> None:
    """A trial reads as strictly as a decision: `/what-if` took the last of two equal keys, and UTF-16."""
    ways = found[form]
    assert [verdict.probability for verdict in ways.values()] == [None] * 4
    assert (ways[TRIAL].status, ways[TRIAL].said) == (ways[PREDICT].status, ways[PREDICT].said)
    assert ways[PREDICT].status in (400, 422)


def test_no_form_is_a_fault_of_the_api(found: dict[str, dict[str, Verdict]]) -> None:
    assert [
        form for form, ways in found.items() for verdict in ways.values() if verdict.status >= 500
    ] == []


def test_a_method_that_is_not_answered_is_told_all_that_are(door: Door) -> None:
    """The page's path has two; the router itself names those of one route."""
    answered = door.ask(Sent("DELETE", "/"))
    assert (answered.status, answered.headers["allow"]) == (405, "GET, POST")
    assert door.ask(REQUESTS["PUT"]).headers["allow"] == "POST"


def test_a_missing_field_is_what_a_name_that_is_near_was_meant_for(
    found: dict[str, dict[str, Verdict]],
) -> None:
    said = found["pay_1 for pay_0"][PREDICT].said
    assert "pay_1 '-1': Extra inputs are not permitted; valid: did you mean pay_0?" in said


def get_paths(app: FastAPI, door: Door) -> dict[str, str]:
    """By route the path of a request; those of `Mount` have a file in them."""
    decision = json.loads(door.ask(one(JSON)).body)["decision_id"]
    values = {
        "decision_id": decision,
        "day": "2026-03-01",
        "until": "2026-03-01",
        "days": "7",
        "sha256": "0" * 64,
        "name": "roc",
        "month": "2026-03",
        "table": "drift",
    }
    files = {"/static": "/page.css", "/static-offline-docs": "/swagger-ui.css"}
    paths = {}
    for route in every_route(app.routes):
        if isinstance(route, Mount):
            paths[route.path] = f"{route.path}{files[route.path]}"
        elif isinstance(route, Route) and "GET" in (route.methods or ()):
            paths[route.path] = re.sub(
                r"{(\w+)(:\w+)?}", lambda match: values[match[1]], route.path
            )
    return paths


def test_head_answers_as_get_does_without_a_body(door: Door) -> None:
    """At every route, whatever its status is: load balancers and monitors ask so."""
    app = fastapi_of(door.app)
    paths = get_paths(app, door)
    assert len(paths) >= 15
    statuses = set()
    for path in paths.values():
        got, head = door.ask(Sent("GET", path)), door.ask(Sent("HEAD", path))
        assert got.body, path
        assert head.body == b"", path
        assert (head.status, head.headers["content-type"]) == (
            got.status,
            got.headers["content-type"],
        ), path
        assert int(got.headers["content-length"]) == len(got.body), path
        if path in LIVE_LENGTH:
            assert int(head.headers["content-length"]) > 0
        else:
            assert head.headers["content-length"] == got.headers["content-length"], path
        assert head.headers.keys() == got.headers.keys(), path
        statuses.add(got.status)
    assert {200, 404} <= statuses


def test_a_batch_of_one_and_a_record_are_the_same_decision(door: Door) -> None:
    """The verdicts above compare one number; the answers are alike in all that is not of the moment."""
    alone = json.loads(door.ask(one(JSON)).body)
    (among,) = json.loads(door.ask(one(JSON, MANY, "/predict/batch")).body)
    assert {**alone, "decision_id": ""} == {**among, "decision_id": ""}
    assert alone["decision_id"] != among["decision_id"]


def test_a_record_as_text_is_not_told_to_those_who_may_not_read() -> None:
    """It has protected fields in it, which nothing tells apart from the others."""
    with pytest.raises(ValidationError) as refused:
        request_model(PORTFOLIO).model_validate(ONE)
    (hidden,) = ContractProblems(PORTFOLIO).of(refused.value.errors(), may_read=False)
    assert hidden == {"field": "body", "value": "redacted", "problem": "no JSON object"}
    (shown,) = ContractProblems(PORTFOLIO).of(refused.value.errors(), may_read=True)
    assert shown["value"] == ONE[:100]
