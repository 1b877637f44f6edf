"""W3C trace context: the ids by which one request is followed through several systems (https://www.w3.org/TR/trace-context/)."""

import os
import re
from dataclasses import dataclass

TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a request stands in its trace: `span_id` is this API's span, `parent_id` the caller's, or None."""

    trace_id: str
    span_id: str
    parent_id: str | None
    flags: str

    @property
    def header(self) -> bytes:
        """As `traceparent` says it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()


def trace_of(header: bytes | None) -> Trace:
    """The trace that a `traceparent` goes on, with a new span; a new trace where there is none, or none that is valid."""
    fresh = os.urandom(24).hex()
    if header is not None and (found := TRACEPARENT.fullmatch(header)) is not None:
        version, trace_id, parent_id, flags, more = found.groups()
        known = version != b"ff" and not (version == b"00" and more)
        if known and trace_id.decode() != NO_TRACE and parent_id.decode() != NO_SPAN:
            return Trace(trace_id.decode(), fresh[:16], parent_id.decode(), f"{int(flags, 16) & 1:02x}")
    return Trace(fresh[16:], fresh[:16], None, "01")
