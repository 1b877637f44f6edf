"""W3C trace context: the ids that follow a request through several systems
(https://www.w3.org/TR/trace-context/).
"""

import os
import re
from typing import NamedTuple

TRACEPARENT = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16


class Trace(NamedTuple):
    """The trace context of a request: `span_id` is this API's span, `parent_id` the caller's, or
    None.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    flags: str

    @property
    def header(self) -> bytes:
        """The value of the header `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()


def trace_of(header: bytes | None) -> Trace:
    """The trace of a `traceparent`, with a new span; a new trace if the header is missing or
    invalid.
    """
    if (
        header is not None
        and (found := TRACEPARENT.fullmatch(header.decode("latin-1"))) is not None
    ):
        version, trace_id, parent_id, flags, rest = found.groups()
        if not (
            version == "ff"
            or (version == "00" and rest)
            or trace_id == NO_TRACE
            or parent_id == NO_SPAN
        ):
            return Trace(
                trace_id, os.urandom(8).hex(), parent_id, "01" if int(flags, 16) & 1 else "00"
            )
    fresh = os.urandom(24).hex()
    return Trace(fresh[16:], fresh[:16], None, "01")
