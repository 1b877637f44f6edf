"""A route whose handler gets the request itself, while its function's signature is what the documentation shows.

FastAPI's own way from a request to a function costs more than deciding does; here a handler reads the body and gives the response.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


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
