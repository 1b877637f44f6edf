"""Changes of the API that break a client of the last release are found, others are not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.openapi_document import breaks, document, main

Json = dict[str, Any]


@pytest.fixture(scope="module")
def now() -> Json:
    return document()


def schema_of(whole: Json, part: Json) -> Json:
    while "$ref" in part:
        part = whole["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return part


def request_of(whole: Json) -> Json:
    body = whole["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    return schema_of(whole, body["schema"])


def answer_of(whole: Json) -> Json:
    answers = whole["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    return schema_of(whole, answers["application/json"]["schema"])


def a_route_is_gone(whole: Json) -> None:
    del whole["paths"]["/predict"]["post"]


def a_field_is_required(whole: Json) -> None:
    request_of(whole)["properties"]["income"] = {"type": "number"}
    request_of(whole)["required"].append("income")


def a_field_is_not_taken(whole: Json) -> None:
    del request_of(whole)["properties"]["limit_bal"]


def a_limit_is_narrower(whole: Json) -> None:
    schema_of(whole, request_of(whole)["properties"]["limit_bal"])["minimum"] = 1e9


def an_answer_is_shorter(whole: Json) -> None:
    del answer_of(whole)["properties"]["default_probability"]


def an_answer_has_another_type(whole: Json) -> None:
    answer_of(whole)["properties"]["default_probability"] = {"type": "string"}


def a_parameter_is_required(whole: Json) -> None:
    parameters = whole["paths"]["/predict"]["post"].setdefault("parameters", [])
    parameters.append({"in": "header", "name": "X-Reason", "required": True})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (a_route_is_gone, "POST /predict is gone"),
        (a_field_is_required, "POST /predict, request: income is required now"),
        (a_field_is_not_taken, "POST /predict, request: limit_bal is gone"),
        (a_limit_is_narrower, "POST /predict, request.limit_bal has minimum 1000000000.0"),
        (an_answer_is_shorter, "POST /predict, answer: default_probability is gone"),
        (an_answer_has_another_type, "POST /predict, answer.default_probability has type string"),
        (a_parameter_is_required, "POST /predict: parameter X-Reason is required now"),
    ],
)
def test_a_change_that_breaks_a_client_is_named(
    now: Json, change: Callable[[Json], None], text: str
) -> None:
    changed = copy.deepcopy(now)
    change(changed)
    assert [one for one in breaks(now, changed) if one.startswith(text)]


def test_what_is_new_breaks_nobody(now: Json) -> None:
    assert not [*breaks(now, now)]
    more = copy.deepcopy(now)
    more["paths"]["/another"] = {"get": {"responses": {}}}
    request_of(more)["properties"]["income"] = {"type": "number"}
    answer_of(more)["properties"]["band"] = {"type": "string"}
    assert not [*breaks(now, more)]


def test_the_command_writes_the_document_and_ends_with_1_if_a_client_would_fail(
    now: Json, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert main([str(new)]) == 0
    assert json.loads(new.read_text()) == json.loads(json.dumps(now))
    earlier = copy.deepcopy(now)
    earlier["paths"]["/gone"] = {"get": {"responses": {}}}
    old.write_text(json.dumps(earlier))
    assert main([str(new), "--since", str(old)]) == 1
    assert capsys.readouterr().out == "GET /gone is gone\n"
