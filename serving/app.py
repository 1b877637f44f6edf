"""The application: routes over the champion in force. It trains nothing, and imports no MLflow,
pandas or scikit-learn.
"""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from creditrisk_assets.decisions.idempotency import IdempotencyIndex, KeysUnavailable
from creditrisk_assets.decisions.writer import DecisionLog, LogUnwritable
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.settings import ServingSettings, Settings
from serving.access.keys import Caller, KeyRing, require_keys_beyond_loopback
from serving.access.rate_limit import RateLimiter
from serving.access.rules import Admission, route_table
from serving.http import json
from serving.http.alerts import alerts_router
from serving.http.batch import BatchHandler
from serving.http.batch_formats import FORMATS
from serving.http.gateway import Gateway
from serving.http.media_types import BYTES, OTHER_NAMES
from serving.http.openapi import ANY_REQUEST, DECISION_ID_PATTERN, document, document_keys
from serving.http.problem_details import ErrorHandler, problem_handlers, problem_response
from serving.http.schemas import Health, ModelInfo, Ready, RecordReader, request_model
from serving.inference.champion_compiler import ChampionCompiler
from serving.inference.champion_file import ChampionFile
from serving.inference.champion_holder import ChampionHolder, LoadedChampion
from serving.inference.decider import Decider, DecisionRequest, KeyUsed, NoChampion, Overloaded
from serving.inference.decision_lookup import DecisionLookup, StoredDecision
from serving.ops.import_guard import block_import
from serving.ops.logs import configure_logs
from serving.ops.loop_metrics import LoopMetrics
from serving.ops.metrics import Metrics, add_metrics_route
from serving.ops.sidecars import end_with_supervisor
from serving.ops.tracing import Tracing, tracing
from serving.pages.customer_page import page_router
from serving.pages.monitoring_page import monitoring_router
from serving.pages.templating import render_problem

if TYPE_CHECKING:
    from creditrisk_assets.decisions.shared_keys import SharedKeys

RETRY_AFTER_SECONDS = 5
KEY_LENGTH_LIMIT = 255

SWITCH_SECONDS = 0.0005
"""Longest time that a thread with a large batch holds Python's lock while the event loop waits for
it, which happens several times in a request. Python's default is ten times as long.
"""

LOOKS_A_POLL = 4
"""A worker's reads of the champion's file for each read of the source."""

REFUSALS = (NoChampion, LogUnwritable, Overloaded, KeyUsed, KeysUnavailable)


# As a function of a `Request` it would be behind four more layers, and the p50 4 % higher.
class Predict:
    """Decide on one customer. The decision is in the log before the answer is sent."""

    def __init__(self, decider: Decider, read: RecordReader) -> None:
        self._decider = decider
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        state = scope["state"]
        message = await receive()  # the gateway gives the whole body in one
        customer = customer_of(message.get("body", b""), self._read)
        (answer,) = await self._decider.decide(
            DecisionRequest(
                [customer],
                state["caller"].name,
                state["request_id"],
                state["received_at"],
                idempotency_key(scope),
                trace_id=state["trace"].trace_id,
            )
        )
        # Starlette's response would take three times as long to say the same.
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def decision_routes(
    decider: Decider, read: RecordReader, serving: ServingSettings, settings: Settings
) -> list[Route]:
    """`POST /predict` and `POST /predict/batch`.

    Args:
        decider: makes and stores decisions.
        read: reads a customer's record.
        serving: limits.
        settings: the portfolio, and a folder for large bodies.
    """
    batch = BatchHandler(
        decider, settings.portfolio, read, serving.limits.batch_rows_limit, settings.run_dir
    )

    async def predict_batch(request: Request) -> Response:
        """Decide on many customers, in their order and in the format of the request: JSON arrays,
        lines of JSON, CSV, Parquet, Arrow streams. A row that does not satisfy the contract is
        answered with its problems; the others are decided.
        """
        return await batch.answer(request, idempotency_key(request.scope))

    return [
        Route("/predict", Predict(decider, read), methods=["POST"]),
        Route("/predict/batch", predict_batch, methods=["POST"]),
    ]


def other_routes(
    holder: ChampionHolder,
    decider: Decider,
    lookup: DecisionLookup,
    settings: Settings,
) -> FastAPI:
    """All routes but those of decisions, and the documentation of all.

    Args:
        holder: the champion.
        decider: knows whether the decision log can be written.
        lookup: finds past decisions.
        settings: the portfolio, and the places of reports.
    """
    portfolio = settings.portfolio
    app = FastAPIOffline(
        title="creditrisk",
        description=f"{portfolio.title}. PD: {portfolio.target_description}, by the model that the "
        "`champion` asset names.",
        responses=ANY_REQUEST,
    )
    app.state.holder = holder
    app.router.route_class = json.StrictRoute
    for kind, handler in _error_handlers(portfolio).items():
        app.add_exception_handler(kind, handler)

    @app.get("/health")
    async def health() -> Health:
        """Liveness: the process answers."""
        return Health()

    @app.get("/ready")
    async def ready(champion: Champion) -> Ready:
        """Readiness: a champion or its fallback is loaded, and the decision log can be written."""
        if decider.problem is not None:
            raise HTTPException(503, decider.problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})
        return Ready(
            **_model(champion),
            degraded=champion.degraded,
            runtime=str(champion.runtime),
            problem=holder.problem,
        )

    @app.get("/model-info")
    async def model_info(champion: Champion) -> ModelInfo:
        """The champion: its training, inputs and figures."""
        manifest = champion.bundle.manifest
        return ModelInfo(
            **_model(champion),
            degraded=champion.degraded,
            mlflow_uri=champion.record.mlflow_uri,
            verdict=champion.record.effective_verdict,
            reason=champion.record.effective_reason,
            portfolio=manifest.portfolio,
            cut_off=champion.record.rule.cut_off,
            scaling=manifest.scaling.model_dump(),
            inputs=champion.bundle.input_names,
            features=manifest.features,
            not_used=manifest.protected,
            training=manifest.training.model_dump(),
            metrics=manifest.metrics,
        )

    @app.get("/decisions/{decision_id}")
    def decision(decision_id: DecisionId, request: Request) -> StoredDecision:
        """A stored decision of the API or on a day's file. A key without the scope `read` gets only
        the decisions of its owner, without the protected fields.
        """
        caller: Caller = request.state.caller
        return lookup.decision_for(caller, decision_id)

    app.include_router(page_router(holder, portfolio, _champion))
    app.include_router(monitoring_router(settings))
    app.include_router(alerts_router(settings))
    app.mount(
        "/static",
        StaticFiles(packages=[("serving.pages", "static"), ("creditrisk_assets", "static")]),
    )

    return app


def app_from_environment() -> Gateway:
    """The API in a worker, over the champion that the publisher process writes."""
    end_with_supervisor()

    import onnxruntime  # noqa: F401 - the first bundle needs it, and the publisher takes time to start

    block_import("pandas")
    sys.setswitchinterval(SWITCH_SECONDS)
    serving = ServingSettings()
    configure_logs(serving.log_format)
    gateway = api(serving, Settings())
    # Each full collection would scan all imported modules, tens of milliseconds without an answer;
    # thousands of new connections cause many collections.
    gc.collect()
    gc.freeze()
    return gateway


def api(serving: ServingSettings, settings: Settings) -> Gateway:
    """The whole API.

    Args:
        serving: limits.
        settings: the portfolio, and the places.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and other machines can reach the API.
    """
    metrics = Metrics(settings.metrics_dir, [LoopMetrics(settings.reports)])
    listeners: list[Metrics | Tracing] = [metrics]
    if serving.otlp_endpoint is not None:
        listeners.append(tracing(serving.otlp_endpoint))
    portfolio, codec = settings.portfolio, settings.decision_log_codec
    look_seconds = serving.limits.champion_poll_seconds / LOOKS_A_POLL
    holder = ChampionHolder(ChampionFile.of(settings), portfolio, look_seconds, [metrics])
    size, seconds = serving.limits.segment_megabytes << 20, serving.limits.segment_minutes * 60
    single_log, batch_log = (
        DecisionLog(settings.open_segments, portfolio.name, codec, size, seconds, keyed=keyed)
        for keyed in (False, True)
    )
    index = IdempotencyIndex(settings.idempotency_file, settings.open_segments, codec)
    shared = _shared_keys(settings)
    compiler = ChampionCompiler(holder, settings.compiled_code)
    decider = Decider(holder, single_log, batch_log, index, [metrics, compiler], shared)
    customer_model = request_model(portfolio)
    decisions = decision_routes(decider, RecordReader(portfolio, customer_model), serving, settings)
    others = other_routes(holder, decider, DecisionLookup(settings), settings)
    add_metrics_route(others, metrics)
    document(others, decisions, portfolio, customer_model, KEY_LENGTH_LIMIT)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        holder.start()
        compiler.start()
        decider.start()
        yield
        holder.stop()
        decider.stop()
        compiler.stop()
        for listener in listeners:
            listener.close()

    app = Starlette(
        routes=decisions, exception_handlers=_error_handlers(portfolio), lifespan=lifespan
    )
    # FastAPI's middleware and own routes would cost each decision 11 microseconds.
    app.router.default = others
    ring = KeyRing(settings.api_keys)
    require_keys_beyond_loopback(
        serving.host, ring, open_beyond_loopback=serving.open_beyond_loopback
    )
    limiter = (
        RateLimiter(settings.run_dir / "rate-limit", serving.rate_limit, serving.limits.rate_burst)
        if serving.rate_limit
        else None
    )
    routes = route_table(serving, tuple(FORMATS), {*OTHER_NAMES, BYTES})
    if ring.requires_keys:
        document_keys(others, routes)
    admission = Admission(ring, limiter, any_host=serving.open_beyond_loopback)
    return Gateway(
        app,
        routes,
        admission,
        log_all=serving.access_log,
        listeners=listeners,
        error_page=partial(render_problem, settings.portfolio),
    )


def _shared_keys(settings: Settings) -> "SharedKeys | None":
    """The idempotency keys of all replicas, if the store has a database."""
    if settings.database_url is None:
        return None
    from creditrisk_assets.decisions.shared_keys import SharedKeys, replica_of

    return SharedKeys(settings.database_url.get_secret_value(), replica_of(settings.api_folder))


def customer_of(body: bytes, read: RecordReader) -> dict[str, Any]:
    """A customer's values by field, in the contract's order, and the identifier if there is one.

    Args:
        body: JSON.
        read: reads its record.

    Raises:
        RequestValidationError: if it does not satisfy the contract.
    """
    try:
        return read(json.parse_request(body))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def idempotency_key(scope: Scope) -> str | None:
    """The client's idempotency key.

    Raises:
        HTTPException: if it is not a valid one.
    """
    key = next(
        (value.decode("latin-1") for name, value in scope["headers"] if name == b"idempotency-key"),
        None,
    )
    if key is not None and not (
        0 < len(key) <= KEY_LENGTH_LIMIT and key.isascii() and key.isprintable() and " " not in key
    ):
        raise HTTPException(
            400,
            f"Idempotency-Key {key[:60]!r}; valid: 1 to {KEY_LENGTH_LIMIT} printable ASCII "
            "characters",
        )
    return key


def _error_handlers(portfolio: Portfolio) -> dict[Any, ErrorHandler]:
    return {**problem_handlers(portfolio), **dict.fromkeys(REFUSALS, _refused)}


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with the reason for no decision, and the time of a retry."""
    http = refusal(error)
    instance = request.scope["state"]["request_id"]
    return problem_response(http.status_code, http.detail, instance=instance, headers=http.headers)


def refusal(error: Exception) -> HTTPException:
    """The reason for no decision, as an HTTP error."""
    if isinstance(error, KeyUsed):
        return HTTPException(422, str(error))
    seconds = 1 if isinstance(error, Overloaded | KeysUnavailable) else RETRY_AFTER_SECONDS
    status = 507 if isinstance(error, LogUnwritable) and error.full else 503
    return HTTPException(status, str(error), {"Retry-After": str(seconds)})


def _champion(request: Request) -> LoadedChampion:
    holder: ChampionHolder = request.app.state.holder
    champion = holder.current
    if champion is None:
        raise refusal(NoChampion(holder.why_none))
    return champion


Champion = Annotated[LoadedChampion, Depends(_champion)]
DecisionId = Annotated[
    str,
    Path(
        description="The `decision_id` of an answer.",
        json_schema_extra={"pattern": DECISION_ID_PATTERN},
    ),
]


def _model(champion: LoadedChampion) -> dict[str, Any]:
    return {
        "model_version": champion.record.model_version,
        "bundle_sha256": champion.record.bundle_sha256,
    }
