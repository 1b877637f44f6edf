"""uvicorn's HTTP protocol with limits of time and size.

A connection is closed if its request's head is late or too large, if its bytes are not HTTP, or if
its client does not read the answer. Time limits of bodies belong in the gateway.
"""

import asyncio
import json
from asyncio.events import TimerHandle
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
)

from creditrisk_assets.settings import ServingSettings
from serving.inference.batch_yield import BATCH_YIELD

LINGER_SECONDS = 2.0
"""Time for which input is discarded after an answer to an unfinished request. Closing at once would
reset the connection, and the client might not read the reason.
"""


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of a connection.

    Args:
        head_seconds: until a request's head is complete.
        write_seconds: while the client reads nothing of its answer.
        head_bytes: of a request's head.
        headers: in a request's head.
    """

    head_seconds: float
    write_seconds: float
    head_bytes: int = 32_768
    headers: int = 100


@cache
def _limits_from_environment() -> ConnectionLimits:
    settings = ServingSettings()
    return ConnectionLimits(settings.limits.head_seconds, settings.limits.write_seconds)


class _HeadTooLarge(Exception):
    """A request has too many headers, or too long ones."""


class _GentleTransport:
    """The transport of an answer; the protocol closes it at once or gently."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = protocol.close_gently


class GuardedProtocol(HttpToolsProtocol):
    """A connection with limits from the environment, or from a subclass."""

    limits: ClassVar[ConnectionLimits | None] = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = self.limits or _limits_from_environment()
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._linger_timer: TimerHandle | None = None
        self._in_head = False
        self._head_size = 0
        self._head_too_large = False
        self._unsent = 0
        self._ignores_input = False  # True once no more requests are accepted

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head."""
        super().connection_made(transport)
        self._gentle: Any = _GentleTransport(transport, self)
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        for timer in (
            self._head_timer,
            self._write_timer,
            self._linger_timer,
            self.timeout_keep_alive_task,
        ):
            if timer is not None:
                timer.cancel()
        self._ignores_input = True
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Let the client, which sends no more, still read the answer to a complete request."""
        if self._answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return True
        return None

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and limit the size and time of the head."""
        BATCH_YIELD.request_arrived()
        if self._ignores_input:
            return
        if self._in_head:
            self._head_size += len(data)
        else:
            # An upper bound, as data may start with the rest of a body; on_headers_complete checks.
            self._head_size = len(data)
        super().data_received(data)
        if self._in_head and self._head_size > self._limits.head_bytes:
            self._refuse(431, self._too_large())
        elif (
            self._head_timer is None
            and (self._in_head or not self._answering)
            and not self._ignores_input
        ):
            self._head_timer = self.loop.call_later(self._limits.head_seconds, self._head_is_late)

    def on_message_begin(self) -> None:
        """Note the start of a head."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the size of a complete head, and stop its timer."""
        self._in_head = False
        if len(self.headers) > self._limits.headers or (
            self._head_size > self._limits.head_bytes
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            > self._limits.head_bytes
        ):
            self._head_too_large = True
            raise _HeadTooLarge
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._gentle

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's name and words
        """Refuse bytes that are not HTTP, or a head that is too large."""
        if self._head_too_large:
            self._refuse(431, self._too_large())
        else:
            self._refuse(400, "what was sent is no request of HTTP/1.1")

    def pause_writing(self) -> None:
        """Start the timer of a client that does not read its answer."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Stop the timer of a client that reads its answer again."""
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close()

    def close_gently(self) -> None:
        """Close; a client that is still sending can read the answer first."""
        if self._linger_timer is not None or self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.more_body:
            self._close()
            return
        self._ignores_input = True
        self.flow.resume_reading()
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._close)

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the request's upgrade to another protocol (RFC 9110, 7.8 allows that)."""

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _too_large(self) -> str:
        return (
            f"the request's head is too large; valid: up to {self._limits.headers} headers, "
            f"{self._limits.head_bytes:,} bytes"
        )

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self._ignores_input:
            return
        if self._answering:  # the late head is that of the next request
            self._head_timer = self.loop.call_later(self._limits.head_seconds, self._head_is_late)
        elif self._in_head:
            self._refuse(
                408, f"the request's head did not come within {self._limits.head_seconds:g} s"
            )
        else:
            self._close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer an invalid request, and close. Earlier requests are answered first."""
        if self._ignores_input:
            return
        self._ignores_input = True
        self.logger.info("refused a connection's bytes with %d: %s", status, detail)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # the fault is in this request's body
            cycle.message_event.set()
            if cycle.response_started:
                self._close()
                return
        title = STATUS_LINE[status].split(b" ", 2)[2].strip().decode()
        body = json.dumps(
            {"type": "about:blank", "title": title, "status": status, "detail": detail}
        ).encode()
        head = (
            b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"  # noqa: E501
            % len(body)
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(
                self._limits.write_seconds, self._writing_is_late
            )

    def _writing_is_late(self) -> None:
        self._write_timer = None
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent > 0:
            self.transport.abort()
        elif unsent:
            self._watch_writing()
