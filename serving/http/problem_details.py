"""Problem details (RFC 9457): what every refused or failed request is told, whoever refuses it.

The members are `type`, `title`, `status`, `detail`, `instance` (the request id, as in the log) and,
where the contract is not satisfied, `problems` with field, value, what is the matter and what would
be valid. Nothing of the inside is said.
"""

import http
import json
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any, cast

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from creditrisk_assets.portfolio.contract import Portfolio, canonical_name
from creditrisk_assets.portfolio.identifiers import VALID_IDENTIFIER
from serving.http.batch_formats import CellFault

log = structlog.get_logger()

ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]

MEDIA_TYPE = "application/problem+json"
VALUE_LENGTH = 100
PROBLEMS_LIMIT = 100
"""A batch may be wrong in every field of every row; after this many the sender knows enough."""
REDACTED = "redacted"
NEAR_NAMES = 3
"""Of a field that the contract does not have: so many of its fields that are spelt alike are named,
or one that is missing.
"""
NO_OBJECT = {"model_type", "model_attributes_type"}
"""Pydantic's kinds of error where a whole record is none."""
PYDANTIC_SAYS = "Value error, "
"""Before what a validator of ours says."""
FRAMES_LOGGED = 12
"""The innermost ones: where it happened, not how the framework came there."""


HEADERS = {
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "How to send a key.",
        "required": True,
        "schema": {"type": "string"},
    },
}
TOLD = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After", 507: "Retry-After"}
"""By the status of a problem, the header that it always has."""


class FieldProblem(BaseModel):
    """One thing wrong with a request."""

    field: str = Field(
        description="Where: the field, in a batch after the number of its record from 0."
    )
    value: str | None = Field(description="What was given, cut; null where nothing was.")
    problem: str = Field(description="What is wrong with it.")
    valid: str | None = Field(None, description="What would be accepted.")


class ProblemDetails(BaseModel):
    """Why there is no answer."""

    type: str = Field("about:blank", description="The status says all.")
    title: str = Field(description="What the status means.")
    status: int
    detail: str = Field(description="What is wrong, and what to do.")
    instance: str | None = Field(
        None, description="The request's id, as in the header X-Request-ID and in the log."
    )
    problems: list[FieldProblem] | None = Field(
        None, description="Each thing wrong with the request."
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may end with these, for the OpenAPI document."""
    content = {
        MEDIA_TYPE: {
            "schema": ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        }
    }
    schema = content[MEDIA_TYPE]["schema"]
    definitions = schema.pop("$defs")
    field_problem = {
        "anyOf": [{"type": "array", "items": definitions["FieldProblem"]}, {"type": "null"}]
    }
    schema["properties"]["problems"] = field_problem
    return {
        status: {
            "description": http.HTTPStatus(status).phrase,
            "content": content,
            **({"headers": {TOLD[status]: HEADERS[TOLD[status]]}} if status in TOLD else {}),
        }
        for status in statuses
    }


def problem_response(
    status: int,
    detail: str,
    *,
    instance: str | None = None,
    problems: Sequence[Mapping[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response. Plain ASGI code sends it too: a response is an application that
    answers so.

    Args:
        status: of the answer.
        detail: what is wrong, and what to do.
        instance: the request's id.
        problems: each thing wrong with the request.
        headers: more of them, such as Retry-After.
    """
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if instance is not None:
        document["instance"] = instance
    if problems is not None:
        document["problems"] = problems
    body = json.dumps(document, ensure_ascii=False).encode(
        errors="replace"
    )  # half a surrogate pair may be in a value
    return Response(body, status, dict(headers or {}), MEDIA_TYPE)


class ContractProblems:
    """Turns what pydantic found wrong with a request into `problems`.

    A value of a protected field is told only to callers with the scope `read`, and so is what is in
    a record that is no record: an answer is seen by more eyes, and kept in more logs, than the
    request was.

    Args:
        portfolio: whose contract the requests must satisfy.
    """

    def __init__(self, portfolio: Portfolio) -> None:
        self._valid = {field.name: field.valid for field in portfolio.fields} | {
            portfolio.identifier: VALID_IDENTIFIER
        }
        self._protected = frozenset(portfolio.protected)

    def of(self, found: Iterable[Mapping[str, Any]], may_read: bool) -> list[dict[str, Any]]:
        """One problem for each error, up to a limit.

        Args:
            found: pydantic's errors.
            may_read: whether the caller has the scope `read`.
        """
        known = list(islice(found, PROBLEMS_LIMIT))
        lacking = [str(one["loc"][-1]) for one in known if one["type"] == "missing" and one["loc"]]
        return [self._problem(one, lacking, may_read) for one in known]

    def of_cells(self, faults: Sequence[CellFault], may_read: bool) -> list[dict[str, Any]]:
        """One problem for each cell of a table that is wrong, up to a limit.

        Args:
            faults: what is wrong.
            may_read: whether the caller has the scope `read`.
        """
        problems: list[dict[str, Any]] = []
        for fault in faults[:PROBLEMS_LIMIT]:
            value, problem = fault.value, fault.problem
            if value is not None and fault.field in self._protected and not may_read:
                value, problem = REDACTED, "not valid"
            value = None if value is None else value[:VALUE_LENGTH]
            problems.append(
                {"field": fault.field, "value": value, "problem": problem, "valid": fault.valid}
            )
        return problems

    def _problem(
        self, found: Mapping[str, Any], lacking: Sequence[str], may_read: bool
    ) -> dict[str, Any]:
        place = [str(part)[:VALUE_LENGTH] for part in found["loc"] if part != "body"]
        named = next(
            (name for part in reversed(place) if (name := canonical_name(part)) in self._valid),
            None,
        )
        given, problem = found.get("input"), str(found["msg"]).removeprefix(PYDANTIC_SAYS)
        value: str | None
        whole = isinstance(given, dict | list)
        if found["type"] in NO_OBJECT:
            problem = "no JSON object"
        if found["type"] == "missing":
            value = None
        elif not place and not whole and not may_read:
            value = REDACTED  # a whole record as text, with what is protected in it
        elif named in self._protected and not may_read:
            value, problem = REDACTED, "not valid"  # the message may quote the value
        elif whole:
            value = "an object" if isinstance(given, dict) else "a list"
        else:
            value = (
                json.dumps(given)
                if given is None or isinstance(given, bool)
                else str(given)[:VALUE_LENGTH]
            )
        valid = {} if named is None else {"valid": self._valid[named]}
        if found["type"] == "extra_forbidden" and named is None and place:
            name = canonical_name(place[-1])
            near = get_close_matches(name, lacking, 1) or get_close_matches(
                name, self._valid, NEAR_NAMES
            )
            valid = {
                "valid": f"did you mean {' or '.join(near)}?"
                if near
                else f"the fields {', '.join(self._valid)}"
            }
        return {"field": ".".join(place) or "body", "value": value, "problem": problem, **valid}


def problem_handlers(portfolio: Portfolio) -> dict[type[Exception], ErrorHandler]:
    """What lets every error of an application leave it as a problem.

    Args:
        portfolio: whose contract the requests must satisfy.
    """
    contract = ContractProblems(portfolio)

    async def invalid(request: Request, error: Exception) -> Response:
        found = cast(RequestValidationError, error).errors()
        caller = getattr(request.state, "caller", None)
        problems = contract.of(found, caller is not None and "read" in caller.scopes)
        return problem_response(
            422,
            "the request does not satisfy the contract",
            instance=_instance(request),
            problems=problems,
        )

    async def refused(request: Request, error: Exception) -> Response:
        known = cast(HTTPException, error)
        detail = str(known.detail)
        if (
            known.status_code == 405 and known.headers and "Allow" in known.headers
        ):  # the router's, which says no more
            detail = f"{request.method} is not answered here; valid: {known.headers['Allow']}"
        elif detail == http.HTTPStatus.NOT_FOUND.phrase:  # the router's too
            detail = f"nothing is at {request.url.path[:VALUE_LENGTH]!r}; valid: the paths of /docs"
        return problem_response(
            known.status_code, detail, instance=_instance(request), headers=known.headers
        )

    async def failed(request: Request, _: Exception) -> Response:
        return failure_response(
            _instance(request)
        )  # the perimeter, where the error arrives too, logs it

    return {RequestValidationError: invalid, HTTPException: refused, Exception: failed}


def failure_response(instance: str | None) -> Response:
    """A 500 for an error that nobody expected."""
    return problem_response(
        500, "this is a fault of the API; tell its operator the request's id", instance=instance
    )


def log_failure(error: Exception, instance: str) -> None:
    """Log an error that nobody expected, by its kind and place: its message may quote a customer's
    values.
    """
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_LOGGED:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    log.error(
        "failed",
        request_id=instance,
        error=f"{type(error).__module__}.{type(error).__qualname__}",
        where=where,
    )


def _instance(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)
