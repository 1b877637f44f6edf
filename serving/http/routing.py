"""Routes whose handler gets the request itself, while their function's signature is what the
documentation shows.

FastAPI's own way from a request to a function costs more than deciding does; here a handler reads
the body and gives the response, and the busiest route is reached without going by all others.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

Handler = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Scope, bytes], Awaitable[bytes]]
Shortcut = Callable[[Scope, bytes], Awaitable[bytes | Response]]
"""Answers a request whose whole body is there: with JSON, or with a response where there is
none.
"""

ErrorHandlers = Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]


def handled_by(handler: Handler) -> type[APIRoute]:
    """A class of route that is answered by a handler.

    Args:
        handler: gives the response to a request, with the route's own documented content.
    """

    class Handled(APIRoute):
        """A route with a handler of its own."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """The handler."""

            async def handle(request: Request) -> Response:
                return await handler(request)

            return handle

    return Handled


def shortcut(answer: Answer, errors: ErrorHandlers) -> Shortcut:
    """What the perimeter may ask instead of the application; it answers just as the route does.

    Args:
        answer: gives the JSON of an answer to a request's body.
        errors: what gives the response to what it raises; what nobody expects is raised on.
    """
    known = tuple(kind for kind in errors if kind is not Exception)

    async def answered(scope: Scope, body: bytes) -> bytes | Response:
        try:
            return await answer(scope, body)
        except known as error:
            return await next(errors[kind] for kind in type(error).__mro__ if kind in errors)(
                Request(scope), error
            )

    return answered
