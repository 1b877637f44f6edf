"""The OpenAPI document is true: what it says is taken is taken, the rest is refused, and every answer is as it says."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.trials.fuzz import fuzz
from tests.support.trials.site import Site, running

SEED = 20_261_122


@pytest.fixture(scope="module")
def key(site: Site) -> dict[str, str]:
    return site.new_key("tester", "admin")


@pytest.fixture(scope="module")
def served(site: Site, key: dict[str, str]) -> Iterator[Site]:
    with running(site):
        yield site


def test_every_answer_to_a_drawn_request_is_as_the_document_says(
    served: Site, key: dict[str, str]
) -> None:
    found = fuzz(served, key, cases=1, seed=SEED, examples=5)
    assert not found.failures, found.failures[0]
    assert found.cases > 500


def test_without_a_key_every_answer_is_as_the_document_says(served: Site) -> None:
    found = fuzz(served, {}, cases=1, seed=SEED, examples=2)
    assert not found.failures, found.failures[0]


def test_every_example_of_the_document_works_as_printed(served: Site, key: dict[str, str]) -> None:
    """An example that is refused sends everybody who tries the API first to the wrong place."""
    document = httpx.get(f"{served.url}/openapi.json").raise_for_status().json()
    schemas = document["components"]["schemas"]
    sent = []
    for path, operations in document["paths"].items():
        for media_type, content in (
            operations.get("post", {}).get("requestBody", {}).get("content", {}).items()
        ):
            for example in _examples(content, schemas):
                body = example if isinstance(example, str) else json.dumps(example)
                answer = httpx.post(
                    f"{served.url}{path}", content=body, headers={**key, "Content-Type": media_type}
                )
                assert answer.status_code == 200, (path, media_type, answer.text)
                assert answer.headers["content-type"].split(";")[0] == media_type
                assert "problem" not in answer.text
                sent.append((path, media_type))
    assert sorted(sent) == [
        ("/predict", "application/json"),
        ("/predict/batch", "application/json"),
        ("/predict/batch", "application/x-ndjson"),
        ("/predict/batch", "text/csv"),
        ("/what-if", "application/json"),
    ]


def test_the_document_names_limits_formats_and_scopes(served: Site) -> None:
    """Whoever makes a client from the document must know what is refused before it is."""
    document = httpx.get(f"{served.url}/openapi.json").raise_for_status().json()
    fields = document["components"]["schemas"]["Customer"]["properties"]
    assert (fields["limit_bal"]["minimum"], fields["limit_bal"]["maximum"]) == (1, 16_777_216)
    batch = document["paths"]["/predict/batch"]["post"]
    formats = {
        "application/json",
        "application/x-ndjson",
        "text/csv",
        "application/vnd.apache.parquet",
        "application/vnd.apache.arrow.stream",
    }
    assert (
        set(batch["requestBody"]["content"]) == set(batch["responses"]["200"]["content"]) == formats
    )
    assert "Retry-After" in batch["responses"]["507"]["headers"]
    assert "`predict`" in batch["description"]


def _examples(content: dict[str, Any], schemas: dict[str, Any]) -> Iterator[Any]:
    if "example" in content:
        yield content["example"]
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    yield from schemas.get(name, {}).get("examples", [])
