"""The customer page: try a customer, see the model's answer and reasons, and the model itself.

The page has no inline scripts or styles and loads nothing from another host. A trial is not logged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import StoredPath
from serving.access.rules import FORM_TYPE
from serving.http.json import StrictRoute
from serving.http.schemas import WhatIfResponse, request_model
from serving.inference.champion_holder import FALLBACK_SUFFIX, ChampionHolder, LoadedChampion
from serving.inference.champion_source import HISTORY_LIMIT, PastChampion
from serving.pages import form, model_documents, versions_page
from serving.pages.scale import Scale, points_at, scale_of
from serving.pages.templating import VERDICT_LABELS, environment
from serving.pages.what_if import what_if

log = structlog.get_logger()

RETRY_LATER = {"Retry-After": "5"}
EMPTY: Mapping[str, str] = MappingProxyType({})
FORM_FIELDS_LIMIT = 1_000
HEADLINE_FIGURES = {
    "roc_auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "calibration_slope": "Calibration slope",
}
"""Held-out figures on the page; the model card has all."""


@dataclass(frozen=True)
class Answer:
    """A trial, and the scale with the customer's points."""

    trial: WhatIfResponse
    scale: Scale


def page_router(
    holder: ChampionHolder,
    portfolio: Portfolio,
    champion_in_force: Callable[[Request], LoadedChampion],
) -> APIRouter:
    """The page, its form, the documents of the model, and `POST /what-if`.

    Args:
        holder: the champion.
        portfolio: the form is made from its contract.
        champion_in_force: dependency that returns the champion, or answers 503.
    """
    router = APIRouter(route_class=StrictRoute)
    Customer = request_model(portfolio)  # noqa: N806 - a class
    Champion = Annotated[LoadedChampion, Depends(champion_in_force)]  # noqa: N806

    def answer_form(
        champion: LoadedChampion, typed: Mapping[str, str]
    ) -> tuple[Answer | None, dict[str, str]]:
        customer, problems = form.read(portfolio, Customer, typed)
        if customer is None:
            return None, problems
        trial = what_if(champion, form.values_of(portfolio, customer), portfolio)
        scores = [request.score for request in champion.bundle.golden]
        known = (min(scores), max(scores))
        scaling = champion.bundle.manifest.scaling
        return Answer(trial, scale_of(trial.score, trial.cut_off, scaling, known)), {}

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(example: str = "") -> Response:
        """The page, with the trial of an example if the query names one."""
        champion = holder.current
        if champion is None or example not in form.EXAMPLES:
            return _page(holder, portfolio, champion)
        typed = form.example(example, champion.bundle, champion.record.rule)
        answer, problems = answer_form(champion, typed)
        return _page(holder, portfolio, champion, typed, problems, answer, example)

    @router.post("/", response_class=HTMLResponse, include_in_schema=False)
    async def trial_by_form(request: Request) -> Response:
        """The page with the champion's answer on the form's customer, or with its problems."""
        content_type = request.headers.get("content-type", "")
        if content_type.partition(";")[0].strip().lower() != FORM_TYPE:
            raise HTTPException(415, f"content type {content_type!r}; valid: {FORM_TYPE}")
        body = await request.body()

        def respond() -> Response:
            typed, champion = _form_fields(body), holder.current
            if champion is None:
                return _page(holder, portfolio, None, typed, status=503)
            answer, problems = answer_form(champion, typed)
            status = 200 if answer else 422
            return _page(holder, portfolio, champion, typed, problems, answer, status=status)

        return await run_in_threadpool(respond)

    @router.post("/what-if")
    def trial(customer: Customer, champion: Champion) -> WhatIfResponse:  # type: ignore[valid-type]
        """The champion's answer on a customer, and its answers if the fields of each reason were
        better. Nothing is logged.
        """
        return what_if(champion, form.values_of(portfolio, customer), portfolio)

    @router.get("/model/card", response_class=HTMLResponse, include_in_schema=False)
    def card(champion: Champion) -> Response:
        """The model card of the version in force."""
        return _document(holder, champion, model_documents.card, "text/html; charset=utf-8")

    @router.get("/model/plots/{name}.png", response_class=Response, include_in_schema=False)
    def curve(name: str, champion: Champion) -> Response:
        """A curve of the version in force."""
        return _document(
            holder,
            champion,
            lambda data_dir, record: model_documents.curve(data_dir, record, name),
            "image/png",
        )

    return router


def _page(
    holder: ChampionHolder,
    portfolio: Portfolio,
    champion: LoadedChampion | None,
    typed: Mapping[str, str] = EMPTY,
    problems: Mapping[str, str] = EMPTY,
    answer: Answer | None = None,
    example: str = "",
    status: int = 200,
) -> HTMLResponse:
    past = holder.history()
    content = (
        environment()
        .get_template("page.html")
        .render(
            portfolio=portfolio,
            words=portfolio.words,
            fields={field.name: field for field in portfolio.fields},
            groups=form.groups(portfolio, typed, problems),
            problems=problems,
            examples=form.EXAMPLES if champion else {},
            example=example,
            answer=answer,
            champion=champion,
            problem=holder.problem,
            model=_model(holder, champion, past) if champion else None,
            worth=versions_page.worth_of(holder.data_dir / "reports", champion.record.model_version)
            if champion
            else None,
            past=past,
            history_limit=HISTORY_LIMIT,
            verdict_labels=VERDICT_LABELS,
        )
    )
    return HTMLResponse(content, status, RETRY_LATER if status == 503 else None)


def _model(
    holder: ChampionHolder, champion: LoadedChampion, past: list[PastChampion]
) -> dict[str, Any]:
    """The page's facts about the model in force."""
    manifest, record = champion.bundle.manifest, champion.record
    return {
        "figures": _figures(manifest.metrics),
        "cut_off_points": points_at(record.rule.cut_off, manifest.scaling),
        "since": _since(record, past),
        **_documents(holder, record),
    }


def _figures(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Name, value and 95 % interval."""
    return [
        (
            title,
            f"{metrics[name]:.4f}",
            f"{metrics[f'{name}_low']:.4f} to {metrics[f'{name}_high']:.4f}"
            if f"{name}_low" in metrics
            else "",
        )
        for name, title in HEADLINE_FIGURES.items()
        if name in metrics
    ]


def _since(record: ChampionRecord, past: list[PastChampion]) -> PastChampion | None:
    """The entry of the history that put the version (without a fallback's suffix) into force; None
    if it is older than the history.
    """
    first, version = None, record.model_version.removesuffix(FALLBACK_SUFFIX)
    for entry in past:
        if entry.record.model_version != version:
            return first
        first = entry
    return first if len(past) < HISTORY_LIMIT else None


def _documents(holder: ChampionHolder, record: ChampionRecord) -> dict[str, Any]:
    try:
        return {
            "has_card": model_documents.has_card(holder.data_dir, record),
            "curves": model_documents.curves(holder.data_dir, record),
            "documents_problem": False,
        }
    except OSError as error:  # an unreachable store must not break the rest of the page
        log.warning("model_documents_not_read", problem=str(error))
        return {"has_card": False, "curves": {}, "documents_problem": True}


def _document(
    holder: ChampionHolder,
    champion: LoadedChampion,
    read: Callable[[StoredPath, ChampionRecord], bytes],
    media_type: str,
) -> Response:
    try:
        content = read(holder.data_dir, champion.record)
    except FileNotFoundError as error:
        raise HTTPException(
            404, f"version {champion.record.model_version} has no such document"
        ) from error
    except OSError as error:
        log.warning("model_document_not_read", problem=str(error))
        raise HTTPException(
            503, "the documents of the model cannot be read now", headers=RETRY_LATER
        ) from error
    return Response(content, media_type=media_type)


def _form_fields(body: bytes) -> dict[str, str]:
    """The typed texts by field."""
    try:
        return dict(
            parse_qsl(
                body.decode("utf-8", "replace"),
                keep_blank_values=True,
                max_num_fields=FORM_FIELDS_LIMIT,
            )
        )
    except ValueError as error:
        raise HTTPException(400, f"a form of more than {FORM_FIELDS_LIMIT} fields") from error
