"""The application: routes over the champion in force. It trains nothing, and holds no MLflow, pandas or scikit-learn."""

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from upath import UPath

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.settings import ServingSettings, Settings
from serving.champion import ChampionHolder, ChampionInDagster, LoadedChampion
from serving.page import page_router
from serving.schemas import (
    Answer,
    BatchResponse,
    Health,
    ModelInfo,
    PredictResponse,
    Problem,
    Ready,
    ReasonGiven,
    batch_request_model,
    request_model,
)

RETRY_AFTER_SECONDS = 5
ERROR_VALUE_LENGTH = 100

NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "No champion is loaded; Retry-After says when to ask again."}
}


def create_app(holder: ChampionHolder, settings: ServingSettings, portfolio: Portfolio, reports: UPath) -> FastAPI:
    """The API over one champion holder.

    Args:
        holder: the champion; started and stopped with the application.
        settings: limits.
        portfolio: whose contract the requests must satisfy.
        reports: folder of the drift reports.
    """
    Customer = request_model(portfolio)  # noqa: N806 - a class, named so in /docs
    app = FastAPIOffline(
        title="creditrisk",
        description=f"{portfolio.title}. PD: {portfolio.target_description}, by the model that the `champion` asset names.",
        lifespan=_lifespan(holder),
    )
    app.state.holder = holder
    app.add_exception_handler(RequestValidationError, _invalid_request(portfolio))
    batch_model = batch_request_model(Customer, settings.batch_rows_limit)

    @app.post("/predict", responses=NOT_READY)
    async def predict(customer: Customer, champion: Champion) -> PredictResponse:  # type: ignore[valid-type]
        """The decision on one customer."""
        answers = _answers(champion, [customer])
        return PredictResponse(**answers[0].model_dump(), **_model(champion), cut_off=champion.record.rule.cut_off)

    @app.post("/predict/batch", responses=NOT_READY)
    def predict_batch(batch: batch_model, champion: Champion) -> BatchResponse:  # type: ignore[valid-type]
        """Decisions on many customers, all by the same model; one record out of order refuses the whole batch."""
        answers = _answers(champion, batch.records)  # type: ignore[attr-defined]
        return BatchResponse(predictions=answers, **_model(champion), cut_off=champion.record.rule.cut_off)

    @app.get("/health")
    async def health() -> Health:
        """Whether the process is alive."""
        return Health()

    @app.get("/ready", responses=NOT_READY)
    async def ready(champion: Champion) -> Ready:
        """Whether a champion is loaded."""
        return Ready(**_model(champion), problem=holder.problem)

    @app.get("/model-info", responses=NOT_READY)
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

    @app.get("/reports/drift/{day}", responses={404: {"model": Problem}}, response_class=HTMLResponse)
    def drift_report(day: datetime.date) -> HTMLResponse:
        """The Evidently report of a day."""
        try:
            page = (reports / "drift" / day.isoformat() / "report.html").read_bytes()
        except FileNotFoundError as error:
            raise HTTPException(404, f"no drift report for {day}") from error
        return HTMLResponse(page)

    app.include_router(page_router(holder, portfolio, _champion))
    app.mount("/static", StaticFiles(packages=[("serving", "static")]))
    return app


def app_from_environment() -> FastAPI:
    """The API over the Dagster instance of `DAGSTER_HOME`, with the environment's settings."""
    serving, settings = ServingSettings(), Settings()
    holder = ChampionHolder(ChampionInDagster.of_environment(), settings.portfolio, serving.champion_poll_seconds)
    return create_app(holder, serving, settings.portfolio, settings.reports)


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


def _lifespan(holder: ChampionHolder) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        holder.start()
        yield
        holder.stop()

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


def _invalid_request(portfolio: Portfolio) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    """422 with, for each thing wrong, where it is, what was given and what would be valid."""
    valid = {field.name: field.valid for field in portfolio.fields}

    async def answer(_: Request, error: Exception) -> JSONResponse:
        problems = []
        for one in cast(RequestValidationError, error).errors():
            place = [str(part) for part in one["loc"] if part != "body"]
            named = next((part.lower() for part in reversed(place) if part.lower() in valid), None)
            problem = {
                "field": ".".join(place) or "body",
                "value": str(one.get("input"))[:ERROR_VALUE_LENGTH] if one["type"] != "missing" else None,
                "problem": one["msg"],
            }
            problems.append(problem | ({"valid": valid[named]} if named else {}))
        return JSONResponse({"detail": "the request does not satisfy the contract", "problems": problems}, status_code=422)

    return answer
