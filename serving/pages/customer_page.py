"""The page for people: try a customer, see what the model says and why, and what the model is.

Rendered here, without a script or a style in the page itself, and with nothing from another host. A
trial is not logged.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from creditrisk_assets.portfolio.contract import Portfolio
from creditrisk_assets.scoring.bundle import ChampionRecord
from creditrisk_assets.storage import StoredPath
from serving.http.json import StrictRoute
from serving.http.schemas import WhatIfResponse, request_model
from serving.inference.champion_holder import FALLBACK_SUFFIX, ChampionHolder, LoadedChampion
from serving.inference.champion_source import HISTORY_LIMIT, PastChampion
from serving.pages import form, model_documents
from serving.pages.scale import Scale, points_at, scale_of
from serving.pages.templating import VERDICTS, environment
from serving.pages.what_if import Trial, what_if

log = structlog.get_logger()

RETRY_LATER = {"Retry-After": "5"}
FORM = "application/x-www-form-urlencoded"
FORM_FIELDS_LIMIT = 1_000
HEADLINE_FIGURES = {
    "roc_auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "calibration_slope": "Calibration slope",
}
"""Of the figures on held-out rows those that the page shows; the model card has all of them."""


@dataclass(frozen=True)
class Answered:
    """A trial, the version that was asked, and where its points are on the scale."""

    version: str
    cut_off: float
    trial: Trial
    scale: Scale


@dataclass(frozen=True)
class Filled:
    """The form: what stands in it, and what is wrong with it by field."""

    typed: Mapping[str, str]
    problems: Mapping[str, str]


EMPTY = Filled({}, {})


def page_router(
    holder: ChampionHolder,
    portfolio: Portfolio,
    champion_in_force: Callable[[Request], LoadedChampion],
) -> APIRouter:
    """The page, its form, the documents of the model, and `POST /what-if`.

    Args:
        holder: the champion.
        portfolio: whose contract the form is made from.
        champion_in_force: dependency that gives the champion, or answers 503.
    """
    router = APIRouter(route_class=StrictRoute)
    Customer = request_model(portfolio)  # noqa: N806 - a class, named so in /docs
    Champion = Annotated[LoadedChampion, Depends(champion_in_force)]  # noqa: N806

    def answered(champion: LoadedChampion, filled: Filled) -> tuple[Answered | None, Filled]:
        customer, problems = form.read(portfolio, Customer, filled.typed)
        if customer is None:
            return None, Filled(filled.typed, problems)
        return _answered(
            champion, what_if(champion, form.values_of(portfolio, customer), portfolio)
        ), filled

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(example: str = "") -> Response:
        """The page, with an example filled in and tried if one is asked for."""
        champion = holder.current
        if champion is None or example not in form.EXAMPLES:
            return _page(holder, portfolio, champion)
        typed = form.example(example, champion.bundle, champion.record.rule)
        answer, filled = answered(champion, Filled(typed, {}))
        return _page(holder, portfolio, champion, filled, answer, example)

    @router.post("/", response_class=HTMLResponse, include_in_schema=False)
    async def trial_by_form(request: Request) -> Response:
        """The page with what the champion says of the customer in the form, or with what is wrong
        in it.
        """
        _require_form(request)
        body = await request.body()

        def answer() -> Response:
            typed, champion = _typed(body), holder.current
            if champion is None:
                return _page(holder, portfolio, None, Filled(typed, {}), status=503)
            result, filled = answered(champion, Filled(typed, {}))
            return _page(holder, portfolio, champion, filled, result, status=200 if result else 422)

        return await run_in_threadpool(answer)

    @router.post("/what-if")
    def trial(customer: Customer, champion: Champion) -> WhatIfResponse:  # type: ignore[valid-type]
        """What the champion would say of a customer, and what it would say if each reason were put
        right. Nothing is logged.
        """
        result = what_if(champion, form.values_of(portfolio, customer), portfolio)
        return WhatIfResponse(
            **asdict(result),
            model_version=champion.record.model_version,
            bundle_sha256=champion.bundle.sha256,
            cut_off=champion.record.rule.cut_off,
        )

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


def _answered(champion: LoadedChampion, trial: Trial) -> Answered:
    cut_off = champion.record.rule.cut_off
    known = [one.score for one in champion.bundle.golden]
    scale = scale_of(
        trial.score, cut_off, champion.bundle.manifest.scaling, (min(known), max(known))
    )
    return Answered(champion.record.model_version, cut_off, trial, scale)


def _page(
    holder: ChampionHolder,
    portfolio: Portfolio,
    champion: LoadedChampion | None,
    filled: Filled = EMPTY,
    answered: Answered | None = None,
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
            groups=form.groups(portfolio, filled.typed, filled.problems),
            filled=filled,
            examples=form.EXAMPLES if champion else {},
            example=example,
            answered=answered,
            champion=champion,
            problem=holder.problem,
            model=_model(holder, champion, past) if champion else None,
            past=past,
            history_limit=HISTORY_LIMIT,
            verdicts=VERDICTS,
        )
    )
    return HTMLResponse(content, status, RETRY_LATER if status == 503 else None)


def _model(
    holder: ChampionHolder, champion: LoadedChampion, past: list[PastChampion]
) -> dict[str, Any]:
    """What the page says of the model in force."""
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
    """By which entry of the history the version, or the one that it is the fallback of, came into
    force; None if that is longer ago than the history goes back.
    """
    mine, version = None, record.model_version.removesuffix(FALLBACK_SUFFIX)
    for one in past:
        if one.record.model_version != version:
            return mine
        mine = one
    return mine if len(past) < HISTORY_LIMIT else None


def _documents(holder: ChampionHolder, record: ChampionRecord) -> dict[str, Any]:
    try:
        of = (holder.data_dir, record)
        return {
            "has_card": model_documents.has_card(*of),
            "curves": model_documents.curves(*of),
            "documents_problem": False,
        }
    except (
        OSError
    ) as error:  # of a store that does not answer; the rest of the page does not depend on it
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


def _require_form(request: Request) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415, f"content type {given!r}; valid: {FORM}")


def _typed(body: bytes) -> dict[str, str]:
    """The form's fields as they were typed."""
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
