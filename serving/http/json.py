"""Strict JSON: refuses a body that two parsers could understand in two ways.

A decision is logged and may be disputed, so a body must be unambiguous: no key twice in an object,
no NaN or Infinity, no invalid UTF-8, no byte order mark, no deep nesting. A number too large for a
float becomes infinite, which no field's range admits.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

DEPTH = 8
"""Levels of objects and lists: /predict has one, a batch three; the page's requests have more."""

BYTE_ORDER_MARK = "\ufeff"


class NotStrictJson(ValueError):
    """A body is not strict JSON; the message has the reason."""


def parse(body: bytes | bytearray, depth: int = DEPTH) -> Any:
    """The value of a body.

    Args:
        body: JSON in UTF-8.
        depth: largest number of levels of objects and lists.

    Raises:
        NotStrictJson: if it is not strict JSON.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"the body is not UTF-8: byte {error.start}") from None
    if text.startswith(BYTE_ORDER_MARK):
        raise NotStrictJson(
            "the body starts with a byte order mark; valid: JSON in UTF-8 without one"
        )
    try:
        value = _DECODER.decode(text)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair has no UTF-8
    except NotStrictJson:
        raise
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError as error:
        raise NotStrictJson(_why(text, error)) from None
    if body.count(b"{") + body.count(b"[") > depth:
        _require_depth(value, depth)
    return value


def parse_request(body: bytes) -> Any:
    """The value of a request's body.

    Raises:
        HTTPException: 400 if it is not strict JSON.
    """
    try:
        return parse(body)
    except NotStrictJson as error:
        raise HTTPException(400, str(error)) from None


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_request(await self.body())


class StrictRoute(APIRoute):
    """A FastAPI route whose JSON body is read strictly; a refused body is answered with 400."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, called with a strict request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            if self.body_field is not None and not await strict.body():
                await strict.json()  # refuses an empty body; FastAPI would name a parameter
            return await handler(strict)

        return handle


def _why(text: str, error: ValueError) -> str:
    if not text.strip():
        return "the body is empty; valid: JSON"
    if isinstance(error, UnicodeEncodeError):
        return "not JSON: a text has half of a surrogate pair"
    if not isinstance(error, json.JSONDecodeError):
        return "not JSON: a number has thousands of digits"
    return f"not JSON: {str(error)[:200]}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for place, name in enumerate(names) if name in names[:place])
        raise NotStrictJson(f"the key {repeated[:60]!r} is there twice; valid: each key once")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise NotStrictJson(f"not JSON: {name} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _require_depth(value: Any, depth: int) -> None:
    """Check the nesting level by level, so that it cannot exhaust the stack."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise _too_deep(depth)


def _too_deep(depth: int) -> NotStrictJson:
    return NotStrictJson(f"JSON nested deeper than {depth} levels")
