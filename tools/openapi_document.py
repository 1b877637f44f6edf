"""The OpenAPI document of the API, and its comparison with that of an earlier release.

`python -m tools.openapi_document openapi.json` writes it. With `--since OLD` it is also compared
with an earlier one, and the exit code is 1 if a client of that release could fail.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete", "head")
LOWER, UPPER = (
    ("minimum", "exclusiveMinimum", "minLength", "minItems"),
    ("maximum", "exclusiveMaximum", "maxLength", "maxItems"),
)

Json = dict[str, Any]


def document() -> Json:
    """The document of the default portfolio's API."""
    from fastapi import FastAPI

    from creditrisk_assets.settings import ServingSettings, Settings
    from serving.app import api

    with tempfile.TemporaryDirectory() as folder:
        gateway = api(
            ServingSettings(), Settings(data_dir=Path(folder), api_keys_file=Path(folder) / "none")
        )
        others = gateway.app.router.default  # type: ignore[attr-defined]
        if not isinstance(others, FastAPI):
            raise TypeError(f"the API's other routes are {type(others).__name__}; valid: FastAPI")
        return others.openapi()


def breaks(old: Json, new: Json) -> Iterator[str]:
    """The changes by which a client of the old document could fail.

    Args:
        old: document of the earlier release.
        new: document of this one.
    """
    for path, methods in old["paths"].items():
        for method in METHODS:
            if method not in methods:
                continue
            name = f"{method.upper()} {path}"
            after = new["paths"].get(path, {}).get(method)
            if after is None:
                yield f"{name} is gone"
                continue
            yield from _operation_breaks(name, methods[method], after, old, new)


def _operation_breaks(name: str, before: Json, after: Json, old: Json, new: Json) -> Iterator[str]:
    known = {(one["in"], one["name"]) for one in before.get("parameters", [])}
    for parameter in after.get("parameters", []):
        if parameter.get("required") and (parameter["in"], parameter["name"]) not in known:
            yield f"{name}: parameter {parameter['name']} is required now"
    sent = after.get("requestBody", {}).get("content", {})
    for kind, body in before.get("requestBody", {}).get("content", {}).items():
        if kind not in sent:
            yield f"{name}: a body of {kind} is not taken any more"
            continue
        schemas = body.get("schema", {}), sent[kind].get("schema", {})
        yield from _schema_breaks(f"{name}, request", *schemas, old, new, is_request=True)
    for status, response in before.get("responses", {}).items():
        if not status.startswith("2"):
            continue
        answered = after.get("responses", {}).get(status, {}).get("content", {})
        for kind, body in response.get("content", {}).items():
            if kind not in answered:
                yield f"{name}: no answer {status} as {kind} any more"
                continue
            schemas = body.get("schema", {}), answered[kind].get("schema", {})
            yield from _schema_breaks(f"{name}, answer", *schemas, old, new, is_request=False)


def _schema_breaks(
    place: str, before: Json, after: Json, old: Json, new: Json, *, is_request: bool
) -> Iterator[str]:
    before, after = _resolved(before, old), _resolved(after, new)
    if before.get("type") != after.get("type"):
        yield f"{place} has type {after.get('type')}, before {before.get('type')}"
        return
    if is_request:
        yield from _narrower(place, before, after)
    had, has = before.get("properties", {}), after.get("properties", {})
    must, must_now = set(before.get("required", [])), set(after.get("required", []))
    for name in sorted(had.keys() - has.keys()):
        if not is_request or after.get("additionalProperties") is False:
            yield f"{place}: {name} is gone"
    for name in sorted(must_now - must if is_request else (must - must_now) & has.keys()):
        yield f"{place}: {name} is {'required' if is_request else 'optional'} now"
    for name in sorted(had.keys() & has.keys()):
        yield from _schema_breaks(
            f"{place}.{name}", had[name], has[name], old, new, is_request=is_request
        )
    if "items" in before and "items" in after:
        yield from _schema_breaks(
            f"{place}[]", before["items"], after["items"], old, new, is_request=is_request
        )


def _narrower(place: str, before: Json, after: Json) -> Iterator[str]:
    """Limits of a request that are narrower than before."""
    if "enum" in after and not set(before.get("enum", [None])) <= set(after["enum"]):
        yield f"{place} takes fewer values"
    for name in LOWER:
        if name in after and after[name] > before.get(name, float("-inf")):
            yield f"{place} has {name} {after[name]}, before {before.get(name, 'none')}"
    for name in UPPER:
        if name in after and after[name] < before.get(name, float("inf")):
            yield f"{place} has {name} {after[name]}, before {before.get(name, 'none')}"


def _resolved(schema: Json, whole: Json) -> Json:
    while "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def main(arguments: list[str]) -> int:
    """Write the document, and compare it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--since", type=Path)
    chosen = parser.parse_args(arguments)
    new = document()
    chosen.file.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if chosen.since is None:
        return 0
    found = [*breaks(json.loads(chosen.since.read_text(encoding="utf-8")), new)]
    sys.stdout.write("".join(f"{one}\n" for one in found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
