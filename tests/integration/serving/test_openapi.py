"""The OpenAPI document agrees with the gateway."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route
from upath import UPath

from creditrisk_assets.settings import ServingSettings, Settings
from serving.access.rules import ADMIN, route_table
from serving.app import api
from serving.http.gateway import Gateway
from serving.http.openapi import document_keys
from tests.support.servers import fastapi_of, routes_of


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return api(ServingSettings(), Settings(data_dir=UPath(tmp_path)))


@pytest.fixture
def app(gateway: Gateway) -> FastAPI:
    return fastapi_of(gateway)


def test_every_route_of_the_api_is_in_the_table(gateway: Gateway) -> None:
    """What is not is closed to all but admin, which nobody notices before a client does."""
    routes = route_table(ServingSettings())
    known = [route for route in routes_of(gateway) if isinstance(route, Route)]
    own = [(method, route.path) for route in known for method in route.methods or ()]
    assert {("POST", "/predict"), ("POST", "/what-if"), ("GET", "/monitoring")} <= {*own}
    assert [one for one in own if routes.rule(*one).scopes == ADMIN] == []


def test_the_document_names_the_scope_of_each_route_and_what_a_refusal_looks_like(
    app: FastAPI,
) -> None:
    document_keys(app, route_table(ServingSettings()))
    document = app.openapi()
    assert document is app.openapi()
    assert set(document["components"]["securitySchemes"]) == {"key", "header"}
    predict: dict[str, Any] = document["paths"]["/predict"]["post"]
    assert predict["security"] == [{"key": []}, {"header": []}]
    assert predict["description"].endswith("Needs a key with the scope `predict`.")
    assert document["paths"]["/health"]["get"]["security"] == []
    assert set(predict["responses"]) >= {
        "200",
        "400",
        "401",
        "403",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
    }
    refusal = predict["responses"]["422"]["content"]
    assert set(refusal) == {"application/problem+json"}
    assert set(refusal["application/problem+json"]["schema"]["properties"]) == {
        "type",
        "title",
        "status",
        "detail",
        "instance",
        "problems",
    }
