"""What the OpenAPI document says of keys and problems, so that /docs can be tried out with a key."""

from typing import Any

from fastapi import FastAPI

from serving.routes import RouteTable

SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key: `cr_…`, as `creditrisk keys create` prints it."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in a header of its own."},
}


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
                    told = f"Needs a key with the scope {' or '.join(f'`{one}`' for one in sorted(needed))}."
                    operation["description"] = f"{operation.get('description', '')}\n\n{told}".strip()
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
