"""The gateway checks everything about a request but its content, before the application.

It is a plain ASGI application around another, in layers: the request's ids, the rule of its route,
the caller (`serving.access.rules`), the body's type, size and pace. A refused request is answered
with a problem (RFC 9457) and never reaches the application. Every answer gets security and cache
headers, and is logged and counted.
"""

import asyncio
import re
import time
from collections.abc import Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.keys import Caller
from serving.access.rules import (
    NOBODY,
    PAGE_HEADERS,
    Admission,
    Body,
    Refused,
    RouteTable,
    Rule,
)
from serving.http.error_pages import ErrorPage, with_error_pages
from serving.http.problem_details import failure_response, log_failure, problem_response
from serving.http.trace import Trace, trace_of

log = structlog.get_logger()

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
JSON_UTF8 = (
    b"application/json",
    b"application/json; charset=utf-8",
    b"application/json;charset=utf-8",
)

SLOWEST_STREAM = 1_024
"""Least bytes a second of a streamed body, over the time that the API waits for it."""

DISCARDED_BYTES = 65_536
DISCARD_SECONDS = 0.5
"""Limits for reading the rest of a refused request, which keeps its connection usable."""

LOGGED_PATH_LENGTH = 200


@dataclass(slots=True)
class Exchange:
    """A request and its answer, for listeners: the log, the metrics, the traces."""

    method: str
    path: str
    rule: Rule
    request_id: str
    trace: Trace
    received_at: float
    state: dict[str, Any]  # the application adds values such as `model_version`
    body_is_read: bool
    caller: Caller = NOBODY
    status: int = 0  # 0: the client has disconnected
    refusal_reason: str | None = None  # of the gateway

    def become_page(self) -> None:
        """Send the headers of a page."""
        self.rule = replace(self.rule, headers=PAGE_HEADERS)


class Listener(Protocol):
    """Is called about requests; its work delays each of them."""

    def on_request(self) -> None:
        """A request has arrived."""

    def on_response(self, exchange: Exchange) -> None:
        """A request was answered."""


class Gateway:
    """The application behind its rules.

    It sets `caller`, `request_id`, `trace` and `received_at` (time.perf_counter()) in
    `scope["state"]`.

    Args:
        app: the application.
        routes: the rule of each route.
        admission: admits or refuses callers.
        log_all: True to log answers below 400, too.
        listeners: called about each request.
        error_page: makes the page of a problem, for browsers; None answers them like programs.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: RouteTable,
        admission: Admission,
        *,
        log_all: bool = False,
        listeners: Sequence[Listener] = (),
        error_page: ErrorPage | None = None,
    ) -> None:
        self.app = app
        self._routes = routes
        self._admission = admission
        self._log_all = log_all
        self._listeners = tuple(listeners)
        self._error_page = error_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # there is no such route

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = self._exchange(scope, headers)
        answer = _with_headers(exchange, send)
        # A browser accepts HTML by name, a program does not.
        if self._error_page is not None and b"text/html" in headers.get(b"accept", b""):
            answer = with_error_pages(answer, self._error_page, exchange.become_page)
        for listener in self._listeners:
            listener.on_request()
        try:
            exchange.caller = exchange.state["caller"] = self._admission.caller(
                exchange.method, exchange.rule, headers, scope["headers"]
            )
            if not exchange.body_is_read:
                receive = await _checked_body(exchange, headers, receive)
            # The routes have GET only; the server omits the body of an answer to HEAD.
            head = exchange.method == "HEAD"
            await self.app({**scope, "method": "GET"} if head else scope, receive, answer)
        except _Disconnected:
            exchange.status = 0
        except HTTPException as refused:
            if isinstance(refused, Refused):
                exchange.refusal_reason = refused.reason
                exchange.caller = refused.caller or exchange.caller
            if not exchange.status:
                if not exchange.body_is_read and refused.status_code not in (408, 413):
                    exchange.body_is_read = await _discard(receive, exchange.rule.body)
                response = problem_response(
                    refused.status_code,
                    refused.detail,
                    instance=exchange.request_id,
                    headers=refused.headers,
                )
                await response(scope, receive, answer)
        except Exception as error:
            log_failure(error, exchange.request_id)
            # Without a status the application has not answered; after a partial answer, returning
            # closes the connection.
            if not exchange.status:
                await failure_response(exchange.request_id)(scope, receive, answer)
        finally:
            for listener in self._listeners:
                listener.on_response(exchange)
            if exchange.status >= 400 or exchange.status == 0 or self._log_all:
                _log(exchange, scope)

    def _exchange(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Exchange:
        """Identify a request and find its rule."""
        received_at = time.perf_counter()
        trace = trace_of(headers.get(b"traceparent"))
        sent_id = headers.get(b"x-request-id")
        request_id = (
            sent_id.decode() if sent_id and REQUEST_ID.fullmatch(sent_id) else trace.trace_id
        )
        method, path = scope["method"], scope["path"]
        root = scope.get("root_path")
        if root and path.startswith(root):
            path = path[len(root) :]
        state = scope.setdefault("state", {})
        state["request_id"], state["trace"], state["received_at"] = request_id, trace, received_at
        has_no_body = b"content-length" not in headers and b"transfer-encoding" not in headers
        rule = self._routes.rule(method, path)
        return Exchange(
            method, path, rule, request_id, trace, received_at, state, body_is_read=has_no_body
        )


def _with_headers(exchange: Exchange, send: Send) -> Send:
    """A channel that adds the request's ids and the headers of its rule to the answer."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            ids = (
                (b"x-request-id", exchange.request_id.encode()),
                (b"traceparent", exchange.trace.header),
            )
            message["headers"] = [*message.get("headers", ()), *exchange.rule.headers, *ids]
            if not exchange.body_is_read:
                # The rest of the body must not be read as the next request.
                message["headers"].append((b"connection", b"close"))
        await send(message)

    return answer


async def _checked_body(
    exchange: Exchange, headers: Mapping[bytes, bytes], receive: Receive
) -> Receive:
    """The application's channel to the body, after a check of its type and size.

    Raises:
        Refused: if the route does not accept them.
    """
    body, length = exchange.rule.body, headers.get(b"content-length")
    if length is not None and int(length) > body.limit:
        raise _too_large(body)
    content_type = headers.get(b"content-type")
    if body.types and not (content_type in JSON_UTF8 and body.types[0] == "application/json"):
        _require_type(content_type, body)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(
            415,
            "content_encoding",
            "compressed bodies are not read; valid: no Content-Encoding",
            {"Accept-Encoding": "identity"},
        )
    if body.streamed:
        return _Stream(receive, body, exchange)
    message = await _read_whole(receive, body)
    exchange.body_is_read = True
    return _first(message, receive)


class _Disconnected(Exception):
    """The client disconnected before it had sent its request."""


def _require_type(content_type: bytes | None, body: Body) -> None:
    media_type, *parameters = (content_type or b"").decode("latin-1").lower().split(";")
    known = media_type.strip() in body.types or media_type.strip() in body.other_names
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            known = False
    if not known:
        valid = ", ".join(body.types)
        sent = repr(content_type.decode("latin-1")[:100]) if content_type else "is missing"
        raise Refused(
            415,
            "content_type",
            f"Content-Type {sent}; valid: {valid}, in UTF-8",
            {"Accept-Post": valid},
        )


def _too_large(body: Body) -> Refused:
    return Refused(413, "body_too_large", f"the body is larger than {body.limit:,} bytes")


def _too_slow(seconds: float, problem: str) -> Refused:
    return Refused(408, "body_too_slow", f"{problem} within {seconds:g} s")


async def _read_whole(receive: Receive, body: Body) -> Message:
    """The whole body as one message."""
    message = await _next(receive, body.seconds)
    if message["type"] == "http.disconnect":
        raise _Disconnected
    first = message.get("body", b"")
    if len(first) > body.limit:
        raise _too_large(body)
    if not message.get("more_body", False):
        return message
    pieces, size = [first], len(first)
    try:
        async with asyncio.timeout(body.seconds):
            while message.get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Disconnected
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > body.limit:
                    raise _too_large(body)
    except TimeoutError:
        raise _too_slow(body.seconds, "the body did not come") from None
    return {"type": "http.request", "body": b"".join(pieces), "more_body": False}


async def _discard(receive: Receive, body: Body) -> bool:
    """Read the rest of a refused request.

    Returns:
        True if it ended soon, so that the connection can be used again.
    """
    limit, seconds = min(body.limit, DISCARDED_BYTES), min(body.seconds, DISCARD_SECONDS)
    try:
        await _read_whole(receive, Body(limit, (), seconds))
    except (Refused, _Disconnected):
        return False
    return True


def _first(message: Message, receive: Receive) -> Receive:
    """A channel that returns a message first, and then those of another channel."""
    is_sent = False

    async def channel() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return message

    return channel


class _Stream:
    """A streamed body. Its faults are raised when the application receives the next piece."""

    def __init__(self, receive: Receive, body: Body, exchange: Exchange) -> None:
        self._receive = receive
        self._body = body
        self._exchange = exchange
        self._size = 0
        self._waited = 0.0

    async def __call__(self) -> Message:
        """The next piece."""
        if self._exchange.body_is_read:
            return await self._receive()
        body, start = self._body, time.perf_counter()
        try:
            message = await _next(self._receive, body.seconds)
            self._waited += time.perf_counter() - start
            self._size += len(message.get("body", b""))
            if self._size > body.limit:
                raise _too_large(body)
            if self._size < (self._waited - body.seconds) * SLOWEST_STREAM:
                raise _too_slow(
                    body.seconds,
                    f"{SLOWEST_STREAM} bytes a second of the body did not come, nor any",
                )
        except Refused as refused:
            self._exchange.refusal_reason = refused.reason
            raise
        self._exchange.body_is_read = not message.get("more_body", False)
        return message


async def _next(receive: Receive, seconds: float) -> Message:
    """The next message, if it arrives in time.

    It has nearly always arrived already. A timer would cost as much as most of the gateway's other
    work, so the coroutine is started by hand, and a timer is set only if it has to wait.
    """
    coroutine: Any = receive()
    try:
        awaited = coroutine.send(None)
    except StopIteration as result:
        message: Message = result.value
        return message
    try:
        async with asyncio.timeout(seconds):
            return await _StartedCoroutine(coroutine, awaited)
    except TimeoutError:
        raise _too_slow(seconds, "the body did not come") from None


class _StartedCoroutine:
    """Awaits the rest of a coroutine that has reached its first wait."""

    def __init__(self, coroutine: Coroutine[Any, Any, Message], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Message]:
        awaited = self._awaited
        while True:
            try:
                try:
                    value = yield awaited
                except BaseException as error:  # cancelled, or timed out; the coroutine handles it
                    awaited = self._coroutine.throw(error)
                else:
                    awaited = self._coroutine.send(value)
            except StopIteration as result:
                message: Message = result.value
                return message


def _log(exchange: Exchange, scope: Scope) -> None:
    caller, trace = exchange.caller, exchange.trace
    client = scope.get("client")
    write = log.error if exchange.status >= 500 else log.info
    write(
        "request",
        method=exchange.method,
        path=exchange.path[:LOGGED_PATH_LENGTH],
        status=exchange.status,
        why=exchange.refusal_reason,
        milliseconds=round((time.perf_counter() - exchange.received_at) * 1_000, 3),
        caller=caller.name,
        key_id=caller.key_id,
        client=client[0] if client else None,
        request_id=exchange.request_id,
        trace_id=trace.trace_id,
        span_id=trace.span_id,
    )
