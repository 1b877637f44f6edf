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
from serving.http.batch_formats import ANSWER_COLUMNS, ARROW, CSV, JSON, NDJSON, PARQUET
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
            models = [
                (model, "serialization") for model in (PredictResponse, ReasonGiven, RowRefused)
            ]
            _, schemas = models_json_schema(
                [(customer, "validation"), *models],  # type: ignore[list-item]
                ref_template=SCHEMAS,
            )
            body = {JSON: {"schema": _ref("Customer")}}
            answer = {
                "description": "The decision.",
                "content": {JSON: {"schema": _ref("PredictResponse")}},
                "links": DECISION_LINK,
            }
            bodies = _batch_bodies(portfolio)
            answers = {"description": "A result for each row.", "content": _batch_answers()}
            content["components"]["schemas"] |= schemas["$defs"]
            content["paths"] = {
                "/predict": {"post": _operation("predict", predict, key_length, body, answer)},
                "/predict/batch": {
                    "post": _operation("predict_batch", predict_batch, key_length, bodies, answers)
                },
                **content["paths"],
            }
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _ref(model: str) -> dict[str, str]:
    return {"$ref": SCHEMAS.format(model=model)}


def _array(items: list[dict[str, str]]) -> dict[str, Any]:
    return {"type": "array", "items": {"anyOf": items}}


def _operation(
    name: str, endpoint: Endpoint, key_length: int, bodies: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": name.replace("_", " ").title(),
        "description": getdoc(endpoint),
        "operationId": name,
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": f"Up to {key_length} printable ASCII characters of your choice. A "
                "repeated request with the same key gets the same answer and causes one decision; "
                "another request with that key is refused.",
                "schema": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": key_length,
                    "pattern": "^[!-~]+$",
                },
            }
        ],
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": answer, **{str(status): one for status, one in DECIDING.items()}},
    }


def _described(kind: dict[str, Any], description: str) -> dict[str, Any]:
    return {"schema": {**kind, "description": description}}


def _batch_bodies(portfolio: Portfolio) -> dict[str, Any]:
    """The request bodies of a batch by media type, with the portfolio's example customer."""
    bodies: dict[str, Any] = {
        JSON: {},
        NDJSON: _described(TEXT, "One customer a line, each as in /predict."),
        CSV: _described(
            TEXT, "UTF-8, `,` or `;` between cells; the header names the fields, in any order."
        ),
        PARQUET: _described(BINARY, "A column for each field."),
        ARROW: _described(
            BINARY, "A column for each field, in the stream format (not the file format)."
        ),
    }
    if portfolio.example:
        customers = [{portfolio.identifier: str(number), **portfolio.example} for number in (1, 2)]
        bodies[JSON]["example"] = customers
        bodies[NDJSON]["example"] = "".join(f"{json.dumps(customer)}\n" for customer in customers)
        bodies[CSV]["example"] = _table_text(customers)
    bodies[JSON]["schema"] = _array([_ref("Customer"), {}]) | {"minItems": 1}
    return bodies


def _batch_answers() -> dict[str, Any]:
    """The answers to a batch by media type."""
    columns = f"Columns: row, the identifier, {', '.join(ANSWER_COLUMNS)}."
    return {
        NDJSON: _described(TEXT, "A line for each row, as the elements of the JSON array."),
        CSV: _described(TEXT, columns),
        PARQUET: _described(BINARY, columns),
        ARROW: _described(BINARY, columns),
        JSON: {"schema": _array([_ref("PredictResponse"), _ref("RowRefused")])},
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
                    scopes = sorted(routes.rule(method.upper(), path).scopes)
                    operation["security"] = [{name: []} for name in SCHEMES] if scopes else []
                    if scopes:
                        valid = " or ".join(f"`{name}`" for name in scopes)
                        about = operation.get("description", "")
                        sentence = f"{about}\n\nNeeds a key with the scope {valid}."
                        operation["description"] = sentence.strip()
            complete = True
        return content

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
