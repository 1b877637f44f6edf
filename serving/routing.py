"""Routes whose handler gets the request itself, while their function's signature is what the documentation shows.

FastAPI's own way from a request to a function costs more than deciding does; here a handler reads the body and gives the
response, and the busiest route is reached without going by all others.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
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


def shortcut(handler: Handler, errors: ErrorHandlers) -> ASGIApp:
    """A handler as an application of its own, which answers just as the route with this handler does.

    Args:
        handler: gives the response to a request.
        errors: what gives the response to what it raises; what is not there is raised on.
    """
    known = tuple(errors)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except known as error:
            response = await next(errors[kind] for kind in type(error).__mro__ if kind in errors)(request, error)
        await response(scope, receive, send)

    return application
