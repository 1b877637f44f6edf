"""Writes spans of requests for OpenTelemetry: `CREDITRISK_OTLP_ENDPOINT` and the extra `otel`.

The gateway sets a request's trace, so a span is made at the end of its request and put into the
SDK's queue. A thread of the SDK sends it; a slow or missing receiver loses spans and delays no
request.
"""

import time
from typing import TYPE_CHECKING

from serving.http.gateway import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

SERVICE = "creditrisk-api"
EXPORT_SECONDS = 5
"""Time limit of each attempt to send spans, also when the process ends."""


class TracingMissing(RuntimeError):
    """The setting requires packages that are not installed."""


def tracing(endpoint: str) -> "Tracing":
    """A listener that sends a span for each request.

    Args:
        endpoint: of an OTLP receiver over HTTP, such as `http://127.0.0.1:4318`.

    Raises:
        TracingMissing: if packages are missing; the message names them.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TracingMissing(
            f"CREDITRISK_OTLP_ENDPOINT is set, but {error.name} is not installed: pip install "
            "'creditrisk[otel]', or unset it"
        ) from error
    exporter = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS
    )
    return Tracing(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))


class Tracing:
    """A listener of the gateway that makes a server span for each sampled request.

    Args:
        processor: receives finished spans.
    """

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._processor = processor
        self._resource = Resource.create({"service.name": SERVICE})
        self._scope = InstrumentationScope("creditrisk")

    def on_request(self) -> None:
        """Nothing: the span is made at the end of the request."""

    def on_response(self, exchange: Exchange) -> None:
        """Make the span of a request."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace = exchange.trace
        flags = TraceFlags(int(trace.flags, 16))
        if not flags.sampled:
            return
        end = time.time_ns()
        trace_id = int(trace.trace_id, 16)
        parent = (
            None
            if trace.parent_id is None
            else SpanContext(trace_id, int(trace.parent_id, 16), True, flags)
        )
        attributes: dict[str, str | int] = {
            "http.request.method": exchange.method,
            "http.route": exchange.rule.template,
            "http.response.status_code": exchange.status,
            "creditrisk.request_id": exchange.request_id,
            "creditrisk.caller": exchange.caller.name,
        }
        model_version = exchange.state.get("model_version")
        if model_version is not None:
            attributes["creditrisk.model_version"] = model_version
        span = ReadableSpan(
            f"{exchange.method} {exchange.rule.template}",
            context=SpanContext(trace_id, int(trace.span_id, 16), False, flags),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR if exchange.status >= 500 else StatusCode.UNSET),
            start_time=end - int((time.perf_counter() - exchange.received_at) * 1e9),
            end_time=end,
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)

    def close(self) -> None:
        """Send the remaining spans, within the time limit."""
        self._processor.shutdown()
