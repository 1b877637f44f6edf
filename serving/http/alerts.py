"""The routes of alerts: their episodes, and a person's acknowledgement or snooze of one.

A reaction is a document in the store, which the loop reads when it advances. The API opens no
database of the loop. Alerts themselves are made and sent by the loop.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import RedirectResponse

from creditrisk_assets.monitoring.episodes import (
    IDENTITY,
    Acknowledgement,
    EpisodeClosed,
    EpisodeError,
    EpisodeRecord,
    Reaction,
    Snooze,
    UnknownEpisode,
    first_problem,
    react,
    read_episodes,
    require_open,
)
from creditrisk_assets.settings import Settings
from creditrisk_assets.storage import StoredPath
from serving.access.keys import Caller
from serving.access.rules import FORM_TYPE, JSON_TYPE
from serving.http.json import StrictRoute, parse_request
from serving.http.problem_details import documented_problems

log = structlog.get_logger()

RETRY_LATER = {"Retry-After": "5"}
FORM_FIELDS_LIMIT = 10
PAGE = "/monitoring"
"""A browser goes back there after its form."""

EPISODE = Annotated[
    str,
    Path(
        description="The `id` of an episode, as `GET /alerts` lists it.",
        json_schema_extra={"pattern": f"^{IDENTITY.pattern}$"},
    ),
]

Action = TypeVar("Action", Acknowledgement, Snooze)


class Alerts(BaseModel):
    """Episodes of alarms: the open ones, then the newest closed ones."""

    episodes: list[EpisodeRecord] = Field(description="The newest first; open ones before closed.")


def alerts_router(settings: Settings) -> APIRouter:
    """The list of alerts, and its two actions.

    Args:
        settings: the place of the episodes.
    """
    router = APIRouter(route_class=StrictRoute)
    folder = settings.episodes

    @router.get("/alerts")
    def alerts(
        state: Annotated[
            Literal["open", "closed"] | None, Query(description="Only episodes of this state.")
        ] = None,
    ) -> Alerts:
        """The episodes of alarms: what is wrong, since when, who takes care of it, and what closed
        it. The open ones are all there, of the closed ones the newest 100.
        """
        return Alerts(episodes=[one for one in _episodes(folder) if state in (None, one.state)])

    @router.post(
        "/alerts/{episode}/acknowledge",
        response_model=EpisodeRecord,
        responses=_answers(),
        openapi_extra=_body(Acknowledgement),
    )
    async def acknowledge(episode: EPISODE, request: Request) -> Any:
        """Acknowledge an open episode in the name of the key's owner: it sends no reminders any
        more. It still sends an alert when it becomes more urgent, and when it ends.
        """
        return await _react(folder, episode, request, Acknowledgement)

    @router.post(
        "/alerts/{episode}/snooze",
        response_model=EpisodeRecord,
        responses=_answers(),
        openapi_extra=_body(Snooze),
    )
    async def snooze(episode: EPISODE, request: Request) -> Any:
        """Snooze an open episode for some days, or until a time, at most 30 days: it sends no
        reminders until then.
        """
        return await _react(folder, episode, request, Snooze)

    return router


async def _react(
    folder: StoredPath, episode: str, request: Request, kind: type[Action]
) -> EpisodeRecord | Response:
    """Store a reaction; the answer to a form goes back to the page."""
    content_type = request.headers.get("content-type", "")
    is_form = content_type.partition(";")[0].strip().lower() == FORM_TYPE
    body = await request.body()
    await run_in_threadpool(_answered, lambda: require_open(folder, episode))
    caller: Caller = request.state.caller
    action = _read_form(kind, body) if is_form else _read_json(kind, body)
    record = await run_in_threadpool(
        _answered, lambda: react(folder, episode, Reaction.of(action, caller.name, "api"))
    )
    return RedirectResponse(PAGE, 303) if is_form else record


def _answered(find: Callable[[], EpisodeRecord]) -> EpisodeRecord:
    """An episode, or the problem for which there is none."""
    try:
        return find()
    except UnknownEpisode as error:
        raise HTTPException(404, str(error)) from error
    except EpisodeClosed as error:
        raise HTTPException(409, str(error)) from error
    except EpisodeError as error:
        raise HTTPException(422, str(error)) from error
    except (OSError, ValidationError) as error:
        log.warning("reaction_not_stored", problem=str(error))
        raise HTTPException(503, "the store cannot be reached now", RETRY_LATER) from error


def _episodes(folder: StoredPath) -> tuple[EpisodeRecord, ...]:
    try:
        return read_episodes(folder)
    except (OSError, ValidationError) as error:
        log.warning("episodes_not_read", problem=str(error))
        raise HTTPException(503, "the episodes cannot be read now", RETRY_LATER) from error


def _read_json(kind: type[Action], body: bytes) -> Action:
    parse_request(body)
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise HTTPException(422, first_problem(error)) from error


def _read_form(kind: type[Action], body: bytes) -> Action:
    try:
        return kind.model_validate(_form(body))
    except ValidationError as error:
        raise HTTPException(422, first_problem(error)) from error


def _form(body: bytes) -> Mapping[str, str]:
    """The fields of a form; an empty one counts as absent."""
    try:
        fields = parse_qsl(
            body.decode(), strict_parsing=True, max_num_fields=FORM_FIELDS_LIMIT, errors="strict"
        )
    except ValueError as error:  # also a byte that is not UTF-8
        raise HTTPException(400, f"the body is no form: {error}") from error
    names = [name for name, _ in fields]
    if len({*names}) != len(names):
        raise HTTPException(400, "a field is there twice; valid: once")
    return {name: value for name, value in fields if value}


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """The body of a request, as JSON and as a form."""
    content = {"schema": kind.model_json_schema()}
    return {"requestBody": {"required": True, "content": {JSON_TYPE: content, FORM_TYPE: content}}}


def _answers() -> dict[int | str, dict[str, Any]]:
    """The answers that only these routes have."""
    return {
        **documented_problems(409),
        303: {
            "description": "The form was taken; the monitoring page.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
    }
