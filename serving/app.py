"""The application: routes over the champion in force. It trains nothing, and holds no MLflow, pandas or scikit-learn."""

import datetime
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from upath import UPath

from creditrisk_assets.api_keys import KeyRing, require_keys_beyond_loopback
from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.settings import ServingSettings, Settings
from serving.champion import ChampionHolder, ChampionInDagster, LoadedChampion
from serving.documentation import document_keys
from serving.logs import configure_logs
from serving.metrics import Metrics, add_metrics_route
from serving.perimeter import Observer, Perimeter
from serving.problems import add_problem_handlers, documented
from serving.rate_limit import RateLimiter
from serving.routes import route_table
from serving.schemas import (
    Answer,
    BatchResponse,
    Health,
    ModelInfo,
    PredictResponse,
    Ready,
    ReasonGiven,
    batch_request_model,
    request_model,
)
from serving.strict_json import StrictRoute
from serving.telemetry import Telemetry, telemetry

RETRY_AFTER_SECONDS = 5

REFUSALS = documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503)
"""How any request may end that is not answered."""


def create_app(
    holder: ChampionHolder,
    settings: ServingSettings,
    portfolio: Portfolio,
    reports: UPath,
    closing: Sequence[Callable[[], None]] = (),
) -> FastAPI:
    """The API over one champion holder.

    Args:
        holder: the champion; started and stopped with the application.
        settings: limits.
        portfolio: whose contract the requests must satisfy.
        reports: folder of the drift reports.
        closing: what is called when the application has stopped.
    """
    Customer = request_model(portfolio)  # noqa: N806 - a class, named so in /docs
    app = FastAPIOffline(
        title="creditrisk",
        description=f"{portfolio.title}. PD: {portfolio.target_description}, by the model that the `champion` asset names.",
        lifespan=_lifespan(holder, closing),
        responses=REFUSALS,
    )
    app.state.holder = holder
    app.router.route_class = StrictRoute
    add_problem_handlers(app, portfolio)
    batch_model = batch_request_model(Customer, settings.batch_rows_limit)

    @app.post("/predict")
    async def predict(customer: Customer, champion: Champion) -> PredictResponse:  # type: ignore[valid-type]
        """The decision on one customer."""
        answers = _answers(champion, [customer])
        return PredictResponse(**answers[0].model_dump(), **_model(champion), cut_off=champion.record.rule.cut_off)

    @app.post("/predict/batch")
    def predict_batch(batch: batch_model, champion: Champion) -> BatchResponse:  # type: ignore[valid-type]
        """Decisions on many customers, all by the same model; one record out of order refuses the whole batch."""
        answers = _answers(champion, batch.records)  # type: ignore[attr-defined]
        return BatchResponse(predictions=answers, **_model(champion), cut_off=champion.record.rule.cut_off)

    @app.get("/health")
    async def health() -> Health:
        """Whether the process is alive."""
        return Health()

    @app.get("/ready")
    async def ready(champion: Champion) -> Ready:
        """Whether a champion is loaded."""
        return Ready(**_model(champion), problem=holder.problem)

    @app.get("/model-info")
    async def model_info(champion: Champion) -> ModelInfo:
        """What the champion is."""
        manifest = champion.bundle.manifest
        return ModelInfo(
            **_model(champion),
            mlflow_uri=champion.record.mlflow_uri,
            verdict=champion.record.verdict,
            reason=champion.record.reason,
            portfolio=manifest.portfolio,
            cut_off=champion.record.rule.cut_off,
            scaling=manifest.scaling.model_dump(),
            inputs=champion.bundle.input_names,
            features=manifest.features,
            not_used=manifest.protected,
            training=manifest.training.model_dump(),
            metrics=manifest.metrics,
        )

    @app.get("/reports/drift/{day}", response_class=HTMLResponse)
    def drift_report(day: datetime.date) -> HTMLResponse:
        """The Evidently report of a day."""
        try:
            page = (reports / "drift" / day.isoformat() / "report.html").read_bytes()
        except FileNotFoundError as error:
            raise HTTPException(404, f"no drift report for {day}") from error
        return HTMLResponse(page)

    return app


def app_from_environment() -> Perimeter:
    """The API over the Dagster instance of `DAGSTER_HOME`, with the environment's settings."""
    serving, settings = ServingSettings(), Settings()
    configure_logs(serving.log_format)
    metrics = Metrics(settings.metrics_dir)
    observers: list[Metrics | Telemetry] = [metrics]
    if serving.otlp_endpoint is not None:
        observers.append(telemetry(serving.otlp_endpoint))
    holder = ChampionHolder(ChampionInDagster.of_environment(), settings.portfolio, serving.champion_poll_seconds)
    app = create_app(holder, serving, settings.portfolio, settings.reports, [one.close for one in observers])
    add_metrics_route(app, metrics)
    return closed(app, serving, settings, observers)


def closed(app: FastAPI, serving: ServingSettings, settings: Settings, observers: Sequence[Observer] = ()) -> Perimeter:
    """The application with its perimeter.

    Raises:
        KeysError: if the file of keys cannot be read.
        OpenBeyondLoopback: if there are no keys and others than this machine could ask.
    """
    ring = KeyRing(settings.api_keys)
    require_keys_beyond_loopback(serving.host, ring, open_beyond_loopback=serving.open_beyond_loopback)
    limited = RateLimiter(settings.run_dir / "rate-limit", serving.rate_limit, serving.rate_burst) if serving.rate_limit else None
    routes = route_table(serving)
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
    )


def _champion(request: Request) -> LoadedChampion:
    holder: ChampionHolder = request.app.state.holder
    champion = holder.current
    if champion is None:
        why = f"could not be loaded ({holder.problem})" if holder.problem else "does not exist yet"
        raise HTTPException(
            503,
            f"a champion {why}; run `make train`, or launch the job train in the Dagster UI",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    return champion


Champion = Annotated[LoadedChampion, Depends(_champion)]


def _lifespan(
    holder: ChampionHolder, closing: Sequence[Callable[[], None]]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        holder.start()
        yield
        holder.stop()
        for close in closing:
            close()

    return lifespan


def _answers(champion: LoadedChampion, customers: Sequence[BaseModel]) -> list[Answer]:
    bundle = champion.bundle
    raw = bundle.raw({name: [getattr(one, name) for one in customers] for name in bundle.input_names})
    decisions = bundle.decide(raw, champion.record.rule)
    texts = {reason.code: ReasonGiven(code=reason.code, text=reason.text) for reason in bundle.manifest.reasons}
    return [
        Answer(prediction=prediction, default_probability=probability, score=score, reasons=[texts[code] for code in codes])
        for prediction, probability, score, codes in zip(
            decisions.prediction.tolist(),
            decisions.default_probability.tolist(),
            decisions.score.tolist(),
            bundle.reason_codes(decisions),
            strict=True,
        )
    ]


def _model(champion: LoadedChampion) -> dict[str, Any]:
    return {"model_version": champion.record.model_version, "bundle_sha256": champion.record.bundle_sha256}
