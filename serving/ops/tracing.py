"""Spans of requests for OpenTelemetry: `CREDITRISK_OTLP_ENDPOINT` and the extra `otel`.

The gateway has settled a request's trace already, so a span is made whole when the request is over,
and handed to the SDK's queue. A thread of the SDK sends it; a receiver that is slow or gone costs
spans, never a request.
"""

import time
from typing import TYPE_CHECKING

from serving.http.gateway import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

SERVICE = "creditrisk-api"
EXPORT_SECONDS = 5
"""Longest time of one attempt to send spans, also when the process ends."""


class TracingMissing(RuntimeError):
    """The setting asks for spans, and the packages that send them are not installed."""


def tracing(endpoint: str) -> "Tracing":
    """A listener that sends a span for each request.

    Args:
        endpoint: of an OTLP receiver over HTTP, such as `http://127.0.0.1:4318`.

    Raises:
        TracingMissing: says what to install.
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
    """Listens to the gateway and makes one server span for each request that its caller traces.

    Args:
        processor: takes spans that have ended.
    """

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._processor = processor
        self._resource = Resource.create({"service.name": SERVICE})
        self._scope = InstrumentationScope("creditrisk")

    def on_request(self) -> None:
        """A request has come."""

    def on_response(self, exchange: Exchange) -> None:
        """It has been answered."""
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
        """Send the remaining spans, as far as that is quick."""
        self._processor.shutdown()
