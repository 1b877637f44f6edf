"""HTTP over one connection, as uvicorn speaks it, with the patience that uvicorn has without end
made finite.

A connection is closed on which no whole request head comes in time, whose head is too large, which
sends what is no HTTP, or whose client does not take its answer. Time limits of bodies are the
perimeter's matter.
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
"""After an answer to a request that is still being sent, what comes is dropped for so long. Closing
at once would reset the connection, and the client might never read why it was refused.
"""


@dataclass(frozen=True)
class Patience:
    """What a connection may ask for.

    Args:
        head_seconds: until a request's head is whole.
        write_seconds: while the client takes nothing of its answer.
        head_bytes: of a request's head.
        headers: in it.
    """

    head_seconds: float
    write_seconds: float
    head_bytes: int = 32_768
    headers: int = 100


@cache
def _of_environment() -> Patience:
    settings = ServingSettings()
    return Patience(settings.limits.head_seconds, settings.limits.write_seconds)


class _HeadTooLarge(Exception):
    """More headers, or longer ones, than a request may have."""


class _GentleTransport:
    """What a request's answer is written to; closed at once or gently, as the protocol knows."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = protocol.close_gently


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Its limits are the environment's; a subclass may name others."""

    patience: ClassVar[Patience | None] = None

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._patience = self.patience or _of_environment()
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._linger_timer: TimerHandle | None = None
        self._in_head = False
        self._head_size = 0
        self._head_too_large = False
        self._unsent = 0
        self._deaf = False  # nothing that comes on this connection is a request any more

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._gentle: Any = _GentleTransport(transport, self)
        self._head_timer = self.loop.call_later(self._patience.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        for timer in (
            self._head_timer,
            self._write_timer,
            self._linger_timer,
            self.timeout_keep_alive_task,
        ):
            if timer is not None:
                timer.cancel()
        self._deaf = True
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client will send no more. What it has asked for whole, it still gets."""
        if self._answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return True
        return None

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        BATCH_YIELD.request_arrived()
        if self._deaf:
            return
        if self._in_head:
            self._head_size += len(data)
        else:
            self._head_size = len(
                data
            )  # which may be the rest of a body and a head, so it is looked at more closely below
        super().data_received(data)
        if self._in_head and self._head_size > self._patience.head_bytes:
            self._refuse(431, self._too_large())
        elif self._head_timer is None and (self._in_head or not self._answering) and not self._deaf:
            self._head_timer = self.loop.call_later(self._patience.head_seconds, self._head_is_late)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        if len(self.headers) > self._patience.headers or (
            self._head_size > self._patience.head_bytes
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            > self._patience.head_bytes
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
        """What came is no HTTP, or more of it than is taken."""
        if self._head_too_large:
            self._refuse(431, self._too_large())
        else:
            self._refuse(400, "what was sent is no request of HTTP/1.1")

    def pause_writing(self) -> None:
        """The client does not keep up with its answer."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked."""
        self._close()

    def close_gently(self) -> None:
        """Close; where the client is still sending, so that it can read the answer first."""
        if self._linger_timer is not None or self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.more_body:
            self._close()
            return
        self._deaf = True
        self.flow.resume_reading()
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._close)

    def _unsupported_upgrade_warning(self) -> None:
        """The request is answered as if it had not asked for another protocol, as it may be (RFC
        9110, 7.8).
        """

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _too_large(self) -> str:
        return (
            f"the request's head is too large; valid: up to {self._patience.headers} headers, "
            f"{self._patience.head_bytes:,} bytes"
        )

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self._deaf:
            return
        if self._answering:  # the head of the next request, sent while this one is being answered
            self._head_timer = self.loop.call_later(self._patience.head_seconds, self._head_is_late)
        elif self._in_head:
            self._refuse(
                408, f"the request's head did not come within {self._patience.head_seconds:g} s"
            )
        else:
            self._close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what is no request, and close. Requests before it are answered first."""
        if self._deaf:
            return
        self._deaf = True
        self.logger.info("refused a connection's bytes with %d: %s", status, detail)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # it is this request's body that is wrong
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
                self._patience.write_seconds, self._writing_is_late
            )

    def _writing_is_late(self) -> None:
        self._write_timer = None
        left = self.transport.get_write_buffer_size()
        if left >= self._unsent > 0:
            self.transport.abort()
        elif left:
            self._watch_writing()
