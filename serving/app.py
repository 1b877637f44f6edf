"""The application: routes over the champion in force. It trains nothing, and holds no MLflow, pandas or scikit-learn."""

import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response
from upath import UPath

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.idempotency import IdempotencyIndex
from creditrisk_assets.settings import ServingSettings, Settings
from serving.champion import ChampionHolder, LoadedChampion
from serving.decider import Asked, Decider, KeyUsed, NoChampion, Overloaded
from serving.routing import handled_by
from serving.schemas import Health, ModelInfo, PredictResponse, Ready, request_model
from serving.segments import DecisionLog, LogUnwritable
from serving.sources import source_of

RETRY_AFTER_SECONDS = 5


def create_app(holder: ChampionHolder, decider: Decider, settings: ServingSettings, portfolio: Portfolio, reports: UPath) -> FastAPI:
    """The API over one champion holder.

    Args:
        holder: the champion; started and stopped with the application.
        decider: makes and keeps decisions; started and stopped with the application.
        settings: limits.
        portfolio: whose contract the requests must satisfy.
        reports: folder of the drift reports.
    """
    Customer = request_model(portfolio)  # noqa: N806 - a class, named so in /docs
    customers: TypeAdapter[BaseModel] = TypeAdapter(Customer)
    app = FastAPIOffline(
        title="creditrisk",
        description=f"{portfolio.title}. PD: {portfolio.target_description}, by the model that the `champion` asset names.",
        lifespan=_lifespan(holder, decider),
    )
    app.state.holder = holder

    async def decide_on_one(request: Request) -> Response:
        body = await request.body()
        try:
            customer = customers.validate_json(body)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from error
        asked = Asked([_values(customer)], "anonymous", "", __import__("time").perf_counter(), request.headers.get("idempotency-key"))
        (answer,) = await decided(decider, asked)
        return Response(answer, media_type="application/json")

    async def predict(customer: Customer) -> PredictResponse:  # type: ignore[valid-type]
        """The decision on one customer. It is in the decision log before it is told."""
        raise NotImplementedError

    app.router.add_api_route("/predict", predict, methods=["POST"], route_class_override=handled_by(decide_on_one))

    @app.get("/health")
    async def health() -> Health:
        """Whether the process is alive."""
        return Health()
    return app


def app_from_environment() -> FastAPI:
    """The API over the Dagster instance of `DAGSTER_HOME`, with the environment's settings."""
    serving, settings = ServingSettings(), Settings()
    portfolio, codec = settings.portfolio, settings.decision_log_codec
    holder = ChampionHolder(source_of(serving.champion_source), portfolio, serving.champion_poll_seconds)
    singles, many = (
        DecisionLog(
            settings.open_segments, portfolio.name, codec, serving.segment_megabytes << 20, serving.segment_minutes * 60
        )
        for _ in range(2)
    )
    index = IdempotencyIndex(settings.idempotency_file, settings.open_segments, codec)
    return create_app(holder, Decider(holder, singles, many, index, lambda group: None), serving, portfolio, settings.reports)

async def decided(decider, asked):
    return await decider.decide(asked)

def _values(customer):
    return customer.__dict__

def _lifespan(holder: ChampionHolder, decider: Decider) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        holder.start()
        decider.start()
        yield
        holder.stop()
        decider.stop()

    return lifespan
