"""What the OpenAPI document says that no signature does: keys, and the formats of batches, with
examples that work as printed.
"""

import csv
import io
import json
from typing import Any

from fastapi import FastAPI

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
        "description": "The same key, in a header of its own.",
    },
}

DECISION_ID_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{16}-[0-9]{1,12}$"
DECISION_LINK = {
    "decision": {
        "operationId": "decision_decisions__decision_id__get",
        "parameters": {"decision_id": "$response.body#/decision_id"},
        "description": "The decision as it was kept.",
    }
}
BINARY = {"type": "string", "format": "binary"}
TEXT = {"type": "string", "minLength": 1}


def key_parameter(length: int) -> dict[str, Any]:
    """The header Idempotency-Key.

    Args:
        length: of the longest one.
    """
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": f"Up to {length} printable ASCII characters of your own: the same key "
        "gives the same answer and one decision, however often it is sent; with another request "
        "it is refused.",
        "schema": {"type": "string", "minLength": 1, "maxLength": length, "pattern": "^[!-~]+$"},
    }


def batch_bodies(portfolio: Portfolio) -> dict[str, Any]:
    """What a batch may be, by media type; JSON's schema is that of the signature.

    Args:
        portfolio: whose example customer stands in the examples.
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
    """What a batch is answered with, in kind."""
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
        app: the application, whose document is changed.
        routes: what holds for which route.
    """
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = made()
        document.setdefault("components", {})["securitySchemes"] = SCHEMES
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                needed = routes.rule(method.upper(), path).scopes
                operation["security"] = [{name: []} for name in SCHEMES] if needed else []
                if needed:
                    told = (
                        "Needs a key with the scope "
                        f"{' or '.join(f'`{one}`' for one in sorted(needed))}."
                    )
                    operation["description"] = (
                        f"{operation.get('description', '')}\n\n{told}".strip()
                    )
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
