"""HTTP to the store's own services: API, Dagster webserver, MLflow. They are never asked through a
proxy.

A bank's machines have `HTTP_PROXY` set for the world outside; it knows neither this machine's
loopback nor the store's own hosts. What goes to others, such as the alert webhook, goes through the
operator's proxy as usual and is not this module's matter.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import httpx

LOOPBACK = ("127.0.0.1", "localhost", "::1")

EXEMPTIONS = ("NO_PROXY", "no_proxy")
"""Libraries read the one or the other; both are given all, so that none hides what the operator
wrote into the other.
"""


def direct_client(**options: Any) -> httpx.Client:
    """An HTTP client that uses no proxy, whatever the environment says. The environment's
    certificates count.

    Args:
        options: of `httpx.Client`.
    """
    return httpx.Client(mounts={"http://": None, "https://": None, "all://": None}, **options)


def get(url: str, timeout: float = 5.0) -> httpx.Response:
    """Ask one of the store's services once.

    Args:
        url: address.
        timeout: in seconds.

    Raises:
        httpx.HTTPError: if it does not answer.
    """
    with direct_client(timeout=timeout) as client:
        return client.get(url)


def exempt_from_proxies(*urls: str) -> None:
    """Let libraries that make connections of their own (MLflow's client, gRPC), here and in the
    processes started from here, use no proxy for this machine's loopback and the hosts of some
    addresses.

    Args:
        urls: addresses of the store's services; what has no host is passed over.
    """
    hosts = [host for host in (urlsplit(url).hostname for url in urls) if host]
    known = [
        one.strip()
        for name in EXEMPTIONS
        for one in os.environ.get(name, "").split(",")
        if one.strip()
    ]
    exempt = ",".join(dict.fromkeys([*known, *LOOPBACK, *hosts]))
    os.environ.update(dict.fromkeys(EXEMPTIONS, exempt))
