"""The perimeter: everything about a request that is not its contents is settled here, before the
application is called.

One plain ASGI application around another. In this order: which request it is (request id, trace),
which rule holds for its route, whose key it carries, whether they may, how often they may, what it
carries and how much of it. What is refused here never reaches the application, and is told why as a
problem (RFC 9457). What the application answers gets the headers that keep it to the one who asked.
"""

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Coroutine, Generator, Mapping, Sequence
from typing import Any, Protocol

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.keys import ANONYMOUS, Caller, KeyRing
from serving.access.rate_limit import RateLimiter
from serving.access.rules import (
    JSON_TYPE,
    Body,
    RouteTable,
    Rule,
)
from serving.http.problem_details import failure_response, log_failure, problem_response
from serving.http.protocol import WHOLE_ANSWER
from serving.http.routing import Shortcut
from serving.http.trace import Trace, trace_of

log = structlog.get_logger()

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
OWN_HOST = re.compile(rb"(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?")
JSON_UTF8 = (
    b"application/json",
    b"application/json; charset=utf-8",
    b"application/json;charset=utf-8",
)
ONE_VALUE = (
    b"authorization",
    b"x-api-key",
    b"content-type",
    b"content-encoding",
    b"x-request-id",
    b"host",
)
"""Headers that two of would mean two things."""

SLOWEST_STREAM = 1_024
"""Bytes a second, over the time that the API waits for a streamed body: slower ones only hold a
place.
"""

DROPPED_BYTES = 65_536
DROPPED_SECONDS = 0.5
"""What is still read of a request that is refused, so that the client can ask again on the same
connection.
"""

LOGGED_PATH_LENGTH = 200
HOW_TO_SEND_A_KEY = (
    "; valid: `Authorization: Bearer <key>`, or `X-API-Key: <key>`; `creditrisk keys create` "
    "makes one"
)
FOREIGN_HOST = (
    "without API keys the API answers only to this machine, as localhost or 127.0.0.1; "
    "`creditrisk keys create NAME --scope predict` makes a key"
)
NOBODY = Caller("nobody", frozenset())
"""Whoever asks for what everybody may see: nobody looks at their key."""


class Exchange:
    """One request and its answer, for those who look on: the log, the metrics, the traces."""

    __slots__ = (
        "body",
        "body_is_read",
        "caller",
        "method",
        "path",
        "received_at",
        "refused",
        "request_id",
        "rule",
        "state",
        "status",
        "trace",
    )

    def __init__(
        self,
        method: str,
        path: str,
        rule: Rule,
        request_id: str,
        trace: Trace,
        state: dict[str, Any],
    ) -> None:
        self.method = method
        self.path = path
        self.rule = rule
        self.request_id = request_id
        self.trace = trace
        self.state = state  # what the application has noted of it, such as `model_version`
        self.received_at: float = state["received_at"]
        self.caller = NOBODY
        self.status = 0  # 0: nobody was there any more to be answered
        self.body = b""  # where it is not streamed
        self.body_is_read = True
        self.refused: str | None = None  # why the perimeter did not let it through


class Observer(Protocol):
    """Somebody who looks on. What it does costs each request."""

    def started(self) -> None:
        """A request has come."""

    def ended(self, exchange: Exchange) -> None:
        """It has been answered."""


class Refused(HTTPException):
    """A request that the perimeter does not let through; `why` is a word for log and metrics."""

    def __init__(
        self, status: int, why: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.why = why


class Perimeter:
    """The application, closed to strangers.

    It sets `caller`, `request_id`, `trace` and `received_at` (time.perf_counter()) in
    `scope["state"]`.

    Args:
        app: the application.
        routes: what holds for which route.
        ring: the keys.
        limiter: how much a caller may ask, None for as much as they like. Anonymous callers are not
            limited: on their own machine there is nobody to protect from them.
        open_beyond_loopback: whether callers without a key may come by another name than this
            machine's own.
        log_all: whether answers below 400 are logged too.
        observers: who looks on.
        shortcuts: by method and path, what answers without going through the application; not for
            streamed bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: RouteTable,
        ring: KeyRing,
        *,
        limiter: RateLimiter | None = None,
        open_beyond_loopback: bool = False,
        log_all: bool = False,
        observers: Sequence[Observer] = (),
        shortcuts: Mapping[tuple[str, str], Shortcut] | None = None,
    ) -> None:
        self.app = app
        self._shortcuts = dict(shortcuts or {})
        self._routes = routes
        self._ring = ring
        self._limiter = limiter
        self._any_host = open_beyond_loopback
        self._log_all = log_all
        self._observers = tuple(observers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # there is no such route

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_at = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        trace = trace_of(headers.get(b"traceparent"))
        sent_id = headers.get(b"x-request-id")
        request_id = (
            sent_id.decode() if sent_id and REQUEST_ID.fullmatch(sent_id) else trace.trace_id
        )
        method, path = scope["method"], scope["path"]
        root = scope.get("root_path")
        if root and path.startswith(root):
            path = path[len(root) :]
        rule = self._routes.rule(method, path)
        state = scope.setdefault("state", {})
        state["request_id"], state["trace"], state["received_at"] = request_id, trace, received_at
        exchange = Exchange(method, path, rule, request_id, trace, state)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = ((b"x-request-id", request_id.encode()), (b"traceparent", trace.header))
                message["headers"] = [*message.get("headers", ()), *rule.headers, *own]
                if not exchange.body_is_read:
                    message["headers"].append(
                        (b"connection", b"close")
                    )  # who asks again must not do so behind the rest of this
            await send(message)

        for observer in self._observers:
            observer.started()
        exchange.body_is_read = not (
            b"content-length" in headers or b"transfer-encoding" in headers
        )
        try:
            self._admit(exchange, headers, scope["headers"])
            state["caller"] = exchange.caller
            if not exchange.body_is_read:
                receive = await self._body(rule.body, headers, receive, exchange)
            answered = self._shortcuts.get((method, path))
            if answered is None:
                # The server leaves the body of an answer to HEAD out; the routes know GET alone.
                await self.app(
                    {**scope, "method": "GET"} if method == "HEAD" else scope, receive, answer
                )
                return
            content = await answered(scope, exchange.body)
            if not isinstance(content, bytes):
                await content(scope, receive, answer)
            elif not _written(exchange, scope, content):
                await Response(content, media_type=JSON_TYPE)(scope, receive, answer)
        except _Gone:
            exchange.status = 0
        except HTTPException as refused:
            if isinstance(refused, Refused):
                exchange.refused = refused.why
            if not exchange.status:
                if not exchange.body_is_read and refused.status_code not in (408, 413):
                    exchange.body_is_read = await _dropped(receive, rule.body)
                response = problem_response(
                    refused.status_code,
                    refused.detail,
                    instance=request_id,
                    headers=refused.headers,
                )
                await response(scope, receive, answer)
        except Exception as error:
            log_failure(error, request_id)
            # The application has answered already if it could; returning closes a half answered
            # connection.
            if not exchange.status:
                await failure_response(request_id)(scope, receive, answer)
        finally:
            for observer in self._observers:
                observer.ended(exchange)
            if exchange.status >= 400 or exchange.status == 0 or self._log_all:
                _log(exchange, scope)

    def _admit(
        self, exchange: Exchange, headers: dict[bytes, bytes], sent: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Settle who asks, and refuse those who may not."""
        rule, method = exchange.rule, exchange.method
        if len(headers) != len(sent):
            _refuse_contradictions(sent)
        if not rule.scopes:
            _require_method(method, rule)
            return
        if method == "POST" and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise Refused(
                403, "cross_site", "another site's page may not ask this in its reader's name"
            )
        if not self._ring.asks_for_keys:
            host = headers.get(b"host")
            if host is not None and not self._any_host and OWN_HOST.fullmatch(host) is None:
                raise Refused(403, "host", FOREIGN_HOST)
            exchange.caller = ANONYMOUS
            _require_method(method, rule)
            return
        key = _key(headers)
        caller = None if key is None else self._ring.caller(key)
        if caller is None:
            asked = 'Bearer realm="creditrisk"'
            if rule.page and method in ("GET", "HEAD"):
                asked = f'Basic realm="creditrisk", charset="UTF-8", {asked}'
            why, detail = (
                ("no_key", "an API key is needed")
                if key is None
                else ("bad_key", "the API key is not valid, or expired")
            )
            raise Refused(401, why, detail + HOW_TO_SEND_A_KEY, {"WWW-Authenticate": asked})
        exchange.caller = caller
        if caller.scopes.isdisjoint(rule.scopes):
            needed = " or ".join(sorted(rule.scopes))
            raise Refused(
                403, "scope", f"{caller.name} may not do this: the scope {needed} is missing"
            )
        if self._limiter is not None:
            over = self._limiter.refusal(caller.name)
            if over is not None:
                detail = (
                    f"{caller.name} asks more than {over.rate:g} times a second; wait "
                    f"{over.seconds:.3f} s"
                )
                raise Refused(429, "rate", detail, over.headers)
        _require_method(method, rule)

    async def _body(
        self, body: Body, headers: dict[bytes, bytes], receive: Receive, exchange: Exchange
    ) -> Receive:
        """What the application receives from, once the body is known to be one that it takes."""
        length = headers.get(b"content-length")
        if length is not None and int(length) > body.limit:
            raise _too_large(body)
        given = headers.get(b"content-type")
        if body.types and not (given in JSON_UTF8 and body.types[0] == "application/json"):
            _require_type(given, body)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refused(
                415,
                "content_encoding",
                "compressed bodies are not read; valid: no Content-Encoding",
                {"Accept-Encoding": "identity"},
            )
        if body.streamed:
            return _Stream(receive, body, exchange)
        message = await _whole(receive, body)
        exchange.body_is_read, exchange.body = True, message.get("body", b"")
        return _replayed(message, receive)


def _written(exchange: Exchange, scope: Scope, content: bytes) -> bool:
    """Answer 200 with JSON at one stroke, where the server can; whether it could."""
    write = scope.get("extensions", {}).get(WHOLE_ANSWER, {}).get("write")
    head = b"content-length: %d\r\ncontent-type: application/json\r\n%bx-request-id: %b\r\ntraceparent: %b\r\n"  # noqa: E501
    if write is None or not write(
        200,
        head
        % (len(content), exchange.rule.head, exchange.request_id.encode(), exchange.trace.header),
        content,
    ):
        return False
    exchange.status = 200
    return True


class _Gone(Exception):
    """The client went before it had sent its request."""


def _key(headers: dict[bytes, bytes]) -> bytes | None:
    """The key that a request carries, in whichever of three ways."""
    authorization = headers.get(b"authorization")
    if authorization is None:
        return headers.get(b"x-api-key")
    kind, _, text = authorization.partition(b" ")
    kind = kind.lower()
    if kind == b"bearer":
        return text.strip()
    if kind == b"basic":
        try:
            return base64.b64decode(text.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _refuse_contradictions(headers: Sequence[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    for name in ONE_VALUE:
        if names.count(name) > 1:
            raise Refused(
                400, "contradiction", f"the header {name.decode()} is there twice; valid: once"
            )


def _require_method(method: str, rule: Rule) -> None:
    """Those who may not ask at all are told that first."""
    if rule.allow:
        valid = ", ".join(rule.allow)
        raise Refused(
            405, "method", f"{method} is not answered here; valid: {valid}", {"Allow": valid}
        )


def _require_type(given: bytes | None, body: Body) -> None:
    media_type, *parameters = (given or b"").decode("latin-1").lower().split(";")
    known = media_type.strip() in body.types or media_type.strip() in body.other_names
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            known = False
    if not known:
        valid = ", ".join(body.types)
        raise Refused(
            415,
            "content_type",
            f"Content-Type {_shown(given)}; valid: {valid}, in UTF-8",
            {"Accept-Post": valid},
        )


def _shown(header: bytes | None) -> str:
    return "is missing" if not header else repr(header.decode("latin-1")[:100])


def _too_large(body: Body) -> Refused:
    return Refused(413, "body_too_large", f"the body is larger than {body.limit:,} bytes")


def _too_slow(seconds: float, what: str) -> Refused:
    return Refused(408, "body_too_slow", f"{what} within {seconds:g} s")


async def _whole(receive: Receive, body: Body) -> Message:
    """The whole body as one message."""
    message = await _next(receive, body.seconds)
    if message["type"] == "http.disconnect":
        raise _Gone
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
                    raise _Gone
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > body.limit:
                    raise _too_large(body)
    except TimeoutError:
        raise _too_slow(body.seconds, "the body did not come") from None
    return {"type": "http.request", "body": b"".join(pieces), "more_body": False}


async def _dropped(receive: Receive, body: Body) -> bool:
    """Whether what a refused request still sends came to its end soon, so that the connection can
    go on.
    """
    try:
        await _whole(
            receive, Body(min(body.limit, DROPPED_BYTES), (), min(body.seconds, DROPPED_SECONDS))
        )
    except (Refused, _Gone):
        return False
    return True


def _replayed(message: Message, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return message

    return again


class _Stream:
    """A streamed body, piece by piece. What is wrong with it is raised where the application asks
    for the next piece.
    """

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
            self._exchange.refused = refused.why
            raise
        self._exchange.body_is_read = not message.get("more_body", False)
        return message


async def _next(receive: Receive, seconds: float) -> Message:
    """The next message, if it comes in time.

    It nearly always is there already. A timer for nothing would cost as much as most of the rest
    here, so the first step is made by hand; a timer is set only if that was not enough.
    """
    asked: Any = receive()
    try:
        waiting = asked.send(None)
    except StopIteration as there:
        message: Message = there.value
        return message
    try:
        async with asyncio.timeout(seconds):
            return await _GoneOn(asked, waiting)
    except TimeoutError:
        raise _too_slow(seconds, "the body did not come") from None


class _GoneOn:
    """A coroutine that has been brought to its first wait, to be awaited for the rest."""

    def __init__(self, asked: Coroutine[Any, Any, Message], waiting: Any) -> None:
        self._asked = asked
        self._waiting = waiting

    def __await__(self) -> Generator[Any, Any, Message]:
        waiting = self._waiting
        while True:
            try:
                try:
                    sent = yield waiting
                except (
                    BaseException
                ) as error:  # cancelled, or timed out: the coroutine's to deal with
                    waiting = self._asked.throw(error)
                else:
                    waiting = self._asked.send(sent)
            except StopIteration as done:
                message: Message = done.value
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
        why=exchange.refused,
        milliseconds=round((time.perf_counter() - exchange.received_at) * 1_000, 3),
        caller=caller.name,
        key_id=caller.key_id,
        client=client[0] if client else None,
        request_id=exchange.request_id,
        trace_id=trace.trace_id,
        span_id=trace.span_id,
    )
