"""Adds to the OpenAPI document the parts that FastAPI does not derive from signatures: the two
decision routes, the formats of batches with working examples, and keys.
"""

import csv
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from inspect import getdoc
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from creditrisk_assets.portfolio.contract import Portfolio
from serving.access.rules import RouteTable
from serving.http.batch_formats import (
    ANSWER_COLUMNS,
    ARROW,
    CSV,
    JSON,
    NDJSON,
    PARQUET,
)
from serving.http.problem_details import documented_problems
from serving.http.schemas import PredictResponse, ReasonGiven, RowRefused

Endpoint = Callable[[Request], Awaitable[Response]]

SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: `cr_…`, as `creditrisk keys create` prints it.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key, in another header.",
    },
}

DECISION_ID_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{16}-[0-9]{1,12}$"
SCHEMAS = "#/components/schemas/{model}"
ANY_REQUEST = documented_problems(400, 401, 403, 404, 408, 413, 415, 422, 429, 431, 500, 503)
"""The problems that any request may cause."""

DECIDING = {**ANY_REQUEST, **documented_problems(507)}
DECISION_LINK = {
    "decision": {
        "operationId": "decision_decisions__decision_id__get",
        "parameters": {"decision_id": "$response.body#/decision_id"},
        "description": "The stored decision.",
    }
}
BINARY = {"type": "string", "format": "binary"}
TEXT = {"type": "string", "minLength": 1}


def document(
    app: FastAPI,
    decisions: Sequence[Route],
    portfolio: Portfolio,
    customer: type[BaseModel],
    key_length: int,
) -> None:
    """Add the decision routes to the document of the application.

    Args:
        app: the application.
        decisions: routes of `/predict` and `/predict/batch`; the docstrings of their endpoints are
            the descriptions.
        portfolio: its example customer is in the examples.
        customer: the model of a record.
        key_length: of the longest idempotency key.
    """
    derived = app.openapi
    predict, predict_batch = (route.endpoint for route in decisions)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            content = derived()
            content["components"]["schemas"] |= _schemas(customer)
            content["paths"] = {
                "/predict": {"post": _predict(predict, key_length)},
                "/predict/batch": {"post": _predict_batch(predict_batch, portfolio, key_length)},
                **content["paths"],
            }
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _schemas(customer: type[BaseModel]) -> dict[str, Any]:
    answers = [(model, "serialization") for model in (PredictResponse, ReasonGiven, RowRefused)]
    _, schemas = models_json_schema(
        [(customer, "validation"), *answers],  # type: ignore[list-item]
        ref_template=SCHEMAS,
    )
    return dict(schemas["$defs"])


def _ref(model: str) -> dict[str, str]:
    return {"$ref": SCHEMAS.format(model=model)}


def _predict(endpoint: Endpoint, key_length: int) -> dict[str, Any]:
    answer = {
        "description": "The decision.",
        "content": {JSON: {"schema": _ref("PredictResponse")}},
        "links": DECISION_LINK,
    }
    return _operation("predict", endpoint, key_length, {JSON: {"schema": _ref("Customer")}}, answer)


def _predict_batch(endpoint: Endpoint, portfolio: Portfolio, key_length: int) -> dict[str, Any]:
    bodies, answers = batch_bodies(portfolio), batch_answers()
    bodies[JSON]["schema"] = _array([_ref("Customer"), {}]) | {"minItems": 1}
    answers[JSON] = {"schema": _array([_ref("PredictResponse"), _ref("RowRefused")])}
    answer = {"description": "A result for each row.", "content": answers}
    return _operation("predict_batch", endpoint, key_length, bodies, answer)


def _array(items: list[dict[str, str]]) -> dict[str, Any]:
    return {"type": "array", "items": {"anyOf": items}}


def _operation(
    name: str, endpoint: Endpoint, key_length: int, bodies: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": name.replace("_", " ").title(),
        "description": getdoc(endpoint),
        "operationId": name,
        "parameters": [key_parameter(key_length)],
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": answer, **{str(status): DECIDING[status] for status in DECIDING}},
    }


def key_parameter(length: int) -> dict[str, Any]:
    """The header Idempotency-Key.

    Args:
        length: of the longest key.
    """
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": f"Up to {length} printable ASCII characters of your choice. A repeated "
        "request with the same key gets the same answer and causes one decision; another request "
        "with that key is refused.",
        "schema": {"type": "string", "minLength": 1, "maxLength": length, "pattern": "^[!-~]+$"},
    }


def batch_bodies(portfolio: Portfolio) -> dict[str, Any]:
    """The request bodies of a batch by media type; the schema of JSON is added later.

    Args:
        portfolio: its example customer is in the examples.
    """
    bodies: dict[str, Any] = {
        JSON: {},
        NDJSON: {"schema": {**TEXT, "description": "One customer a line, each as in /predict."}},
        CSV: {
            "schema": {
                **TEXT,
                "description": "UTF-8, `,` or `;` between cells; the header names the fields, in "
                "any order.",
            }
        },
        PARQUET: {"schema": {**BINARY, "description": "A column for each field."}},
        ARROW: {
            "schema": {
                **BINARY,
                "description": "A column for each field, in the stream format (not the file "
                "format).",
            }
        },
    }
    if portfolio.example:
        customers = [{portfolio.identifier: str(number), **portfolio.example} for number in (1, 2)]
        bodies[JSON]["example"] = customers
        bodies[NDJSON]["example"] = "".join(f"{json.dumps(customer)}\n" for customer in customers)
        bodies[CSV]["example"] = _table_text(customers)
    return bodies


def batch_answers() -> dict[str, Any]:
    """The answers to a batch by media type; the schema of JSON is added later."""
    columns = f"Columns: row, the identifier, {', '.join(ANSWER_COLUMNS)}."
    return {
        NDJSON: {
            "schema": {
                **TEXT,
                "description": "A line for each row, as the elements of the JSON array.",
            }
        },
        CSV: {"schema": {**TEXT, "description": columns}},
        PARQUET: {"schema": {**BINARY, "description": columns}},
        ARROW: {"schema": {**BINARY, "description": columns}},
    }


def _table_text(customers: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(customers[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(customers)
    return text.getvalue()


def document_keys(app: FastAPI, routes: RouteTable) -> None:
    """Name, for each route, the scope that its key needs.

    Args:
        app: the application.
        routes: the rule of each route.
    """
    without_keys = app.openapi
    complete = False

    def openapi() -> dict[str, Any]:
        nonlocal complete
        content = without_keys()
        if not complete:
            content.setdefault("components", {})["securitySchemes"] = SCHEMES
            for path, operations in content["paths"].items():
                for method, operation in operations.items():
                    _name_scopes(operation, routes.rule(method.upper(), path).scopes)
            complete = True
        return content

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _name_scopes(operation: dict[str, Any], scopes: frozenset[str]) -> None:
    operation["security"] = [{name: []} for name in SCHEMES] if scopes else []
    if scopes:
        sentence = (
            f"Needs a key with the scope {' or '.join(f'`{name}`' for name in sorted(scopes))}."
        )
        operation["description"] = f"{operation.get('description', '')}\n\n{sentence}".strip()
