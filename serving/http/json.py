"""JSON read strictly: what two parsers could understand in two ways is refused.

A decision is logged and may be disputed, so a body must mean one thing: no key twice in an object,
no NaN or Infinity, no invalid UTF-8, no byte order mark, no deeper nesting than the request has. A
number too large for a float comes out infinite, which no field's range admits.

pydantic-core's parser is much faster than the standard one but takes a repeated key silently, which
the standard one finds with `object_pairs_hook`. So the fast one parses, and the keys that came out
are counted against the colons in the text: as many colons as keys means that no key was lost. Only
a body with more colons, in a text value or by a repeated key, is parsed again to tell which.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException

DEPTH = 8
"""Levels of objects and lists: /predict has one, a batch three; the rest is for the page's
requests.
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotStrictJson(ValueError):
    """Why a body is refused."""


def parse(body: bytes | bytearray, depth: int = DEPTH) -> Any:
    """The value that a body holds.

    Args:
        body: JSON in UTF-8.
        depth: levels of objects and lists that it may have.

    Raises:
        NotStrictJson: says what is wrong, where that is known.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise NotStrictJson(_why(body, error)) from None
    flat = type(value) is dict and body.count(b"{") == 1 and b"[" not in body  # as /predict has it
    if body.count(b":") != (len(value) if flat else _keys(value, depth)):
        _refuse_repeated_keys(body)
    return value


def parsed(body: bytes) -> Any:
    """The value that a request's body holds.

    Raises:
        HTTPException: 400, with what is wrong.
    """
    try:
        return parse(body)
    except NotStrictJson as error:
        raise HTTPException(400, str(error)) from None


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parsed(await self.body())


class StrictRoute(APIRoute):
    """A FastAPI route whose JSON body is read strictly; what is refused is answered with 400."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, given such a request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            read = _StrictRequest(request.scope, request.receive)
            if self.body_field is not None and not await read.body():
                await read.json()  # which says so; FastAPI would miss a field of the signature
            return await handler(read)

        return strict


def _keys(value: Any, depth: int) -> int:
    """Keys of all objects in it, looked at level by level: no nesting can exhaust the stack."""
    keys, level = 0, [value]
    for _ in range(depth):
        inner: list[Any] = []
        for one in level:
            if type(one) is dict:
                keys += len(one)
                inner += [item for item in one.values() if type(item) in (dict, list)]
            elif type(one) is list:
                inner += [item for item in one if type(item) in (dict, list)]
        if not inner:
            return keys
        level = inner
    raise NotStrictJson(f"JSON nested deeper than {depth} levels")


def _refuse_repeated_keys(body: bytes | bytearray) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise NotStrictJson(f"the key {repeated[:60]!r} is there twice; valid: each key once")
        return members

    json.loads(body, object_pairs_hook=unique)


def _why(body: bytes | bytearray, error: ValueError) -> str:
    if not body.strip():
        return "the body is empty; valid: JSON"
    if body.startswith(BYTE_ORDER_MARK):
        return "the body starts with a byte order mark; valid: JSON in UTF-8 without one"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return f"the body is not UTF-8: byte {wrong.start}"
    return f"not JSON: {str(error)[:200]}"
