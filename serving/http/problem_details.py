"""Problem details (RFC 9457): the answer to every refused or failed request.

The members are `type`, `title`, `status`, `detail`, `instance` (the request id, as in the log) and,
if the contract is not satisfied, `problems` with field, value, problem and valid values. An answer
reveals no internals.
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
"""Largest number of problems in an answer: a batch may have one in every field of every row."""
REDACTED = "redacted"
NEAR_NAMES = 3
"""Number of similar field names that the answer suggests for an unknown field."""
NO_OBJECT = {"model_type", "model_attributes_type"}
"""Pydantic's error types for a record that is no object."""
PYDANTIC_PREFIX = "Value error, "
"""Pydantic's prefix of a validator's message."""
FRAMES_LOGGED = 12
"""Innermost frames of a logged traceback; the outer ones are the framework's."""


HEADERS = {
    "Retry-After": {
        "description": "Seconds until a retry.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "The ways to send a key.",
        "required": True,
        "schema": {"type": "string"},
    },
}
HEADER_OF_STATUS = {
    401: "WWW-Authenticate",
    429: "Retry-After",
    503: "Retry-After",
    507: "Retry-After",
}
"""The header that a problem always has, by its status."""


class FieldProblem(BaseModel):
    """A problem of a request."""

    field: str = Field(description="The field; in a batch after the number of its record, from 0.")
    value: str | None = Field(description="The sent value, shortened; null if there was none.")
    problem: str = Field(description="The problem of the value.")
    valid: str | None = Field(None, description="The valid values.")


class ProblemDetails(BaseModel):
    """The reason for a refused or failed request."""

    type: str = Field("about:blank", description="The status is the type.")
    title: str = Field(description="The meaning of the status.")
    status: int
    detail: str = Field(description="The problem, and advice.")
    instance: str | None = Field(
        None, description="The request's id, as in the header X-Request-ID and in the log."
    )
    problems: list[FieldProblem] | None = Field(None, description="All problems of the request.")


def documented_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these statuses, for the OpenAPI document."""
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
            **(
                {"headers": {HEADER_OF_STATUS[status]: HEADERS[HEADER_OF_STATUS[status]]}}
                if status in HEADER_OF_STATUS
                else {}
            ),
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
    """A problem as a response, which plain ASGI code can also call as an application.

    Args:
        status: of the answer.
        detail: the problem, and advice.
        instance: the request's id.
        problems: all problems of the request.
        headers: more headers, such as Retry-After.
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
    # A value may hold half of a surrogate pair.
    body = json.dumps(document, ensure_ascii=False).encode(errors="replace")
    return Response(body, status, dict(headers or {}), MEDIA_TYPE)


class ContractProblems:
    """Turns pydantic's errors on a request into `problems`.

    Only callers with the scope `read` see the values of protected fields and the text of malformed
    records: answers reach more people and more logs than requests.

    Args:
        portfolio: its contract applies to the requests.
    """

    def __init__(self, portfolio: Portfolio) -> None:
        self._valid = {field.name: field.valid for field in portfolio.fields} | {
            portfolio.identifier: VALID_IDENTIFIER
        }
        self._protected = frozenset(portfolio.protected)

    def of(self, errors: Iterable[Mapping[str, Any]], may_read: bool) -> list[dict[str, Any]]:
        """A problem for each error, up to a limit.

        Args:
            errors: of pydantic.
            may_read: True if the caller has the scope `read`.
        """
        first = list(islice(errors, PROBLEMS_LIMIT))
        missing = [
            str(error["loc"][-1]) for error in first if error["type"] == "missing" and error["loc"]
        ]
        return [self._problem(error, missing, may_read) for error in first]

    def of_cells(self, faults: Sequence[CellFault], may_read: bool) -> list[dict[str, Any]]:
        """A problem for each faulty cell of a table, up to a limit.

        Args:
            faults: of the cells.
            may_read: True if the caller has the scope `read`.
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
        self, error: Mapping[str, Any], missing: Sequence[str], may_read: bool
    ) -> dict[str, Any]:
        place = [str(part)[:VALUE_LENGTH] for part in error["loc"] if part != "body"]
        field = next(
            (name for part in reversed(place) if (name := canonical_name(part)) in self._valid),
            None,
        )
        sent, problem = error.get("input"), str(error["msg"]).removeprefix(PYDANTIC_PREFIX)
        value: str | None
        is_container = isinstance(sent, dict | list)
        if error["type"] in NO_OBJECT:
            problem = "no JSON object"
        if error["type"] == "missing":
            value = None
        elif not place and not is_container and not may_read:
            value = REDACTED  # a whole record as text may hold protected values
        elif field in self._protected and not may_read:
            value, problem = REDACTED, "not valid"  # the message may quote the value
        elif is_container:
            value = "an object" if isinstance(sent, dict) else "a list"
        else:
            value = (
                json.dumps(sent)
                if sent is None or isinstance(sent, bool)
                else str(sent)[:VALUE_LENGTH]
            )
        valid = {} if field is None else {"valid": self._valid[field]}
        if error["type"] == "extra_forbidden" and field is None and place:
            name = canonical_name(place[-1])
            near = get_close_matches(name, missing, 1) or get_close_matches(
                name, self._valid, NEAR_NAMES
            )
            valid = {
                "valid": f"did you mean {' or '.join(near)}?"
                if near
                else f"the fields {', '.join(self._valid)}"
            }
        return {"field": ".".join(place) or "body", "value": value, "problem": problem, **valid}


def problem_handlers(portfolio: Portfolio) -> dict[type[Exception], ErrorHandler]:
    """Error handlers of an application that answer every error with a problem.

    Args:
        portfolio: its contract applies to the requests.
    """
    contract = ContractProblems(portfolio)

    async def invalid(request: Request, error: Exception) -> Response:
        errors = cast(RequestValidationError, error).errors()
        caller = getattr(request.state, "caller", None)
        problems = contract.of(errors, caller is not None and "read" in caller.scopes)
        return problem_response(
            422,
            "the request does not satisfy the contract",
            instance=_instance(request),
            problems=problems,
        )

    async def refused(request: Request, error: Exception) -> Response:
        refusal = cast(HTTPException, error)
        detail = str(refusal.detail)
        # The router's own errors have no detail.
        if refusal.status_code == 405 and refusal.headers and "Allow" in refusal.headers:
            detail = f"{request.method} is not answered here; valid: {refusal.headers['Allow']}"
        elif detail == http.HTTPStatus.NOT_FOUND.phrase:
            detail = f"nothing is at {request.url.path[:VALUE_LENGTH]!r}; valid: the paths of /docs"
        return problem_response(
            refusal.status_code, detail, instance=_instance(request), headers=refusal.headers
        )

    async def failed(request: Request, _: Exception) -> Response:
        return failure_response(_instance(request))  # the gateway also gets the error, and logs it

    return {RequestValidationError: invalid, HTTPException: refused, Exception: failed}


def failure_response(instance: str | None) -> Response:
    """The answer 500 to an unexpected error."""
    return problem_response(
        500, "this is a fault of the API; tell its operator the request's id", instance=instance
    )


def log_failure(error: Exception, instance: str) -> None:
    """Log an unexpected error by type and place, without its message, which may quote a customer's
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
