"""An application behind a real uvicorn in a thread of this process, on a free port, with the API's own protocol."""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from serving.access.keys import KeyRing
from serving.access.rate_limit import RateLimiter
from serving.access.rules import Admission, RouteTable
from serving.http.gateway import Gateway, Listener
from serving.http.protocol import ConnectionLimits, GuardedProtocol

IMPATIENT = ConnectionLimits(head_seconds=0.5, write_seconds=1.0)


class ImpatientProtocol(GuardedProtocol):
    """What a test need not wait ten seconds for."""

    limits = IMPATIENT


class PatientProtocol(GuardedProtocol):
    """As by default, whatever the environment of the tests says."""

    limits = ConnectionLimits(head_seconds=10.0, write_seconds=30.0)


def fastapi_of(gateway: Gateway) -> FastAPI:
    """The application behind the decision routes of the API."""
    assert isinstance(gateway.app, Starlette)
    others = gateway.app.router.default
    assert isinstance(others, FastAPI)
    return others


def routes_of(gateway: Gateway) -> Iterator[BaseRoute]:
    """All routes of the API."""
    assert isinstance(gateway.app, Starlette)
    return every_route([*gateway.app.routes, *fastapi_of(gateway).routes])


def every_route(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes, and those of included routers, which FastAPI has as one route each."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from every_route(included.routes)


@contextlib.contextmanager
def served(
    app: ASGIApp,
    protocol: type[GuardedProtocol] = PatientProtocol,
    lifespan: Literal["on", "off"] = "off",
    **more: Any,
) -> Iterator[int]:
    """The port on which an application is served."""
    config = uvicorn.Config(
        app, port=0, http=protocol, lifespan=lifespan, server_header=False, log_config=None, **more
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def gateway(
    app: ASGIApp,
    routes: RouteTable,
    ring: KeyRing,
    limiter: RateLimiter | None = None,
    listeners: Sequence[Listener] = (),
) -> Gateway:
    """An application behind a gateway; callers without a key must use this machine's name."""
    return Gateway(app, routes, Admission(ring, limiter, any_host=False), listeners=listeners)
