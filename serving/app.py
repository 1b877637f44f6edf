"""The application: routes over the champion in force. It trains nothing, and holds no MLflow,
pandas or scikit-learn.
"""

import gc
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import Field, ValidationError
from starlette.responses import Response
from starlette.types import Scope

from creditrisk_assets.decisions.idempotency import IdempotencyIndex
from creditrisk_assets.decisions.writer import DecisionLog, LogUnwritable
from creditrisk_assets.governance.ledger import Ledger
from creditrisk_assets.scoring.bundle_store import BundleStore
from creditrisk_assets.settings import ServingSettings, Settings
from serving.access.keys import Caller, KeyRing, require_keys_beyond_loopback
from serving.access.rate_limit import RateLimiter
from serving.access.rules import route_table
from serving.http import json
from serving.http.batch import BatchHandler
from serving.http.batch_formats import FORMATS
from serving.http.gateway import Observer, Perimeter
from serving.http.media_types import BYTES, OTHER_NAMES
from serving.http.openapi import (
    DECISION_ID_PATTERN,
    DECISION_LINK,
    batch_answers,
    batch_bodies,
    document_keys,
    key_parameter,
)
from serving.http.problem_details import documented, problem_handlers, problem_response
from serving.http.routing import handled_by, shortcut
from serving.http.schemas import (
    DecisionKept,
    Health,
    ModelInfo,
    PredictResponse,
    Ready,
    RecordReader,
    RowRefused,
    request_model,
)
from serving.inference.champion_holder import ChampionHolder, LoadedChampion
from serving.inference.champion_source import Source
from serving.inference.decider import (
    Asked,
    Decider,
    KeyUsed,
    NoChampion,
    Overloaded,
)
from serving.inference.decision_lookup import DecisionLookUp
from serving.inference.last_known import LastKnown
from serving.inference.published import PublishedSource
from serving.inference.shadow import Shadow, ShadowLog
from serving.ops.counting import Counting
from serving.ops.import_guard import do_without
from serving.ops.logs import configure_logs
from serving.ops.metrics import Metrics, add_metrics_route
from serving.ops.tracing import Telemetry, telemetry
from serving.pages.customer_page import page_router
from serving.pages.monitoring_page import monitoring_router
from serving.server import end_with_supervisor

RETRY_AFTER_SECONDS = 5
KEY_LENGTH_LIMIT = 255

SWITCH_SECONDS = 0.0005
"""How long a thread with a large batch may keep the event loop waiting for Python's lock; by
default ten times as long, each time that the loop has let go of it, which is several times in a
request.
"""

LOOKS_A_POLL = 4
"""How often a worker looks at what was published while the source is read once."""

REFUSALS = (NoChampion, LogUnwritable, Overloaded, KeyUsed)
ANY_REQUEST = documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 431, 500, 503)
"""How any request may end that is not answered."""

DECIDING = documented(507)


def create_app(
    holder: ChampionHolder,
    decider: Decider,
    look_up: DecisionLookUp,
    serving: ServingSettings,
    settings: Settings,
    starting: Sequence[Callable[[], None]] = (),
    closing: Sequence[Callable[[], None]] = (),
) -> FastAPI:
    """The API over one champion holder.

    Args:
        holder: the champion; started and stopped with the application.
        decider: makes and keeps decisions; started and stopped with the application.
        look_up: finds decisions that were made.
        serving: limits.
        settings: the portfolio, and where reports are.
        starting: what is called when the application begins.
        closing: what is called when it has stopped.
    """
    portfolio = settings.portfolio
    Customer = request_model(portfolio)  # noqa: N806 - a class, named so in /docs
    read = RecordReader(portfolio, Customer)
    app = FastAPIOffline(
        title="creditrisk",
        description=f"{portfolio.title}. PD: {portfolio.target_description}, by the model that "
        "the `champion` asset names.",
        lifespan=_lifespan(holder, decider, starting, closing),
        responses=ANY_REQUEST,
    )
    app.state.holder = holder
    app.router.route_class = json.StrictRoute
    handlers = {**problem_handlers(portfolio), **dict.fromkeys(REFUSALS, _refused)}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)

    async def decision_on_one(scope: Scope, body: bytes) -> bytes:
        state = scope["state"]
        key = idempotency_key(scope)
        customer = customer_of(body, read)
        asked = Asked(
            [customer],
            state["caller"].name,
            state["request_id"],
            state["received_at"],
            key,
            trace_id=state["trace"].trace_id,
        )
        (answer,) = await decider.decide(asked)
        return answer

    async def decided_on_one(request: Request) -> Response:
        return Response(
            await decision_on_one(request.scope, await request.body()),
            media_type="application/json",
        )

    async def predict(customer: Customer) -> PredictResponse:  # type: ignore[valid-type]  # noqa: ARG001 - see handled_by
        """The decision on one customer. It is in the decision log before it is told."""
        raise TypeError("answered by its handler")

    app.router.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        responses={200: {"links": DECISION_LINK}, **DECIDING},
        openapi_extra={"parameters": [key_parameter(KEY_LENGTH_LIMIT)]},
        route_class_override=handled_by(decided_on_one),
    )

    batch = BatchHandler(decider, portfolio, read, serving.batch_rows_limit, settings.run_dir)

    async def decided_on_many(request: Request) -> Response:
        return await batch.answer(request, idempotency_key(request.scope))

    async def predict_batch(
        records: Annotated[list[Customer | Any], Field(min_length=1)],  # type: ignore[valid-type]  # noqa: ARG001 - see handled_by
    ) -> list[PredictResponse | RowRefused]:
        """Decisions on many customers, in their order and in the format they came in: JSON arrays,
        lines of JSON, CSV, Parquet, Arrow streams. A row that does not satisfy the contract is
        answered with what is wrong with it; the others are decided.
        """
        raise TypeError("answered by its handler")

    app.router.add_api_route(
        "/predict/batch",
        predict_batch,
        methods=["POST"],
        responses={200: {"content": batch_answers()}, **DECIDING},
        openapi_extra={
            "parameters": [key_parameter(KEY_LENGTH_LIMIT)],
            "requestBody": {"content": batch_bodies(portfolio)},
        },
        route_class_override=handled_by(decided_on_many),
    )
    app.state.shortcuts = {("POST", "/predict"): shortcut(decision_on_one, handlers)}

    @app.get("/health")
    async def health() -> Health:
        """Whether the process is alive."""
        return Health()

    @app.get("/ready")
    async def ready(champion: Champion) -> Ready:
        """Whether decisions can be made: a champion, or its fallback, is loaded, and the decision
        log can be written.
        """
        if decider.problem is not None:
            raise HTTPException(503, decider.problem, {"Retry-After": str(RETRY_AFTER_SECONDS)})
        return Ready(**_model(champion), degraded=champion.degraded, problem=holder.problem)

    @app.get("/model-info")
    async def model_info(champion: Champion) -> ModelInfo:
        """What the champion is."""
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
    def decision(decision_id: DecisionId, request: Request) -> DecisionKept:
        """A decision that was made, by the API or on a day's file, as it was kept. Who may not
        `read` sees only what the same key's owner has asked for, without the protected fields.
        """
        caller: Caller = request.state.caller
        return look_up.shown_to(caller, decision_id)

    app.include_router(page_router(holder, portfolio, _champion))
    app.include_router(monitoring_router(settings))
    app.mount("/static", StaticFiles(packages=[("serving.pages", "static")]))

    return app


def app_from_environment() -> Perimeter:
    """The API in a worker: over the champion that the process beside it publishes."""
    end_with_supervisor()

    import onnxruntime  # noqa: F401 - the first bundle needs it, and until the reader has spoken there is time

    do_without("pandas")
    sys.setswitchinterval(SWITCH_SECONDS)
    serving = ServingSettings()
    configure_logs(serving.log_format)
    settings = Settings()
    closed_api = api(serving, settings, PublishedSource(settings.published_champion))
    # What was imported stays. Each full collection would look through all of it, for tens of
    # milliseconds in which nobody is answered; where connections come and go by the thousand, there
    # are many of them.
    gc.collect()
    gc.freeze()
    return closed_api


def api(serving: ServingSettings, settings: Settings, source: Source) -> Perimeter:
    """The API, all of it.

    Args:
        serving: limits.
        settings: the portfolio, and where things are.
        source: says which champion is in force.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and others than this machine could ask.
    """
    metrics = Metrics(settings.metrics_dir)
    counting = Counting(metrics)
    observers: list[Metrics | Telemetry] = [metrics]
    if serving.otlp_endpoint is not None:
        observers.append(telemetry(serving.otlp_endpoint))
    portfolio, codec = settings.portfolio, settings.decision_log_codec
    look_seconds = serving.champion_poll_seconds / LOOKS_A_POLL
    bundles, ledger = BundleStore(settings.data_dir), Ledger(settings.ledger)
    last_known = LastKnown(settings.last_known, bundles)
    holder = ChampionHolder(
        source, portfolio, bundles, ledger, last_known, look_seconds, [counting]
    )
    size, seconds = serving.segment_megabytes << 20, serving.segment_minutes * 60
    singles, many = (
        DecisionLog(settings.open_segments, portfolio.name, codec, size, seconds, keyed=keyed)
        for keyed in (False, True)
    )
    index = IdempotencyIndex(settings.idempotency_file, settings.open_segments, codec)
    shadows = [_shadow(serving, settings, source, metrics)] if serving.shadow else []
    decider = Decider(holder, singles, many, index, [counting, *shadows])
    starting = [shadow.start for shadow in shadows]
    closing = [*(shadow.stop for shadow in shadows), *(one.close for one in observers)]
    app = create_app(
        holder, decider, DecisionLookUp(settings), serving, settings, starting, closing
    )
    add_metrics_route(app, metrics)
    return closed(app, serving, settings, observers)


def _shadow(
    serving: ServingSettings, settings: Settings, source: Source, metrics: Metrics
) -> Shadow:
    portfolio, size = settings.portfolio, serving.segment_megabytes << 20
    folder, codec, seconds = (
        settings.shadow_segments,
        settings.decision_log_codec,
        serving.segment_minutes * 60,
    )
    shadow_log = ShadowLog(folder, portfolio.name, codec, size, seconds)
    return Shadow(source, portfolio, BundleStore(settings.data_dir), shadow_log, metrics)


def closed(
    app: FastAPI, serving: ServingSettings, settings: Settings, observers: Sequence[Observer] = ()
) -> Perimeter:
    """The application with its perimeter.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and others than this machine could ask.
    """
    ring = KeyRing(settings.api_keys)
    require_keys_beyond_loopback(
        serving.host, ring, open_beyond_loopback=serving.open_beyond_loopback
    )
    limited = (
        RateLimiter(settings.run_dir / "rate-limit", serving.rate_limit, serving.rate_burst)
        if serving.rate_limit
        else None
    )
    routes = route_table(serving, tuple(FORMATS), {*OTHER_NAMES, BYTES})
    if ring.asks_for_keys:
        document_keys(app, routes)
    return Perimeter(
        app,
        routes,
        ring,
        limiter=limited,
        open_beyond_loopback=serving.open_beyond_loopback,
        log_all=serving.access_log,
        observers=observers,
        shortcuts=app.state.shortcuts,
    )


def customer_of(body: bytes, read: RecordReader) -> dict[str, Any]:
    """A customer's values by field, in the contract's order, and the identifier if there is one.

    Args:
        body: JSON.
        read: reads the record that it holds.

    Raises:
        RequestValidationError: if it does not satisfy the contract.
    """
    try:
        return read(json.parsed(body))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def idempotency_key(scope: Scope) -> str | None:
    """The key that the client has given.

    Raises:
        HTTPException: if it is none.
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


async def _refused(request: Request, error: Exception) -> Response:
    """Say why no decision was made, and when to ask again."""
    known = refusal(error)
    instance = request.scope["state"]["request_id"]
    return problem_response(
        known.status_code, known.detail, instance=instance, headers=known.headers
    )


def refusal(error: Exception) -> HTTPException:
    """Why no decision was made, as HTTP has it."""
    if isinstance(error, KeyUsed):
        return HTTPException(422, str(error))
    seconds = 1 if isinstance(error, Overloaded) else RETRY_AFTER_SECONDS
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
    str, Path(description="As answers have it.", json_schema_extra={"pattern": DECISION_ID_PATTERN})
]


def _lifespan(
    holder: ChampionHolder,
    decider: Decider,
    starting: Sequence[Callable[[], None]],
    closing: Sequence[Callable[[], None]],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        holder.start()
        decider.start()
        for start in starting:
            start()
        yield
        holder.stop()
        decider.stop()
        for close in closing:
            close()

    return lifespan


def _model(champion: LoadedChampion) -> dict[str, Any]:
    return {
        "model_version": champion.record.model_version,
        "bundle_sha256": champion.record.bundle_sha256,
    }
