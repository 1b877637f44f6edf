"""HTTP to the store's own services (API, Dagster webserver, MLflow), never through a proxy.

A bank's machines set `HTTP_PROXY` for outside addresses; the proxy reaches neither this machine's
loopback nor the store's own hosts. Requests to other services, such as the alert webhook, use the
operator's proxy and belong elsewhere.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import httpx

LOOPBACK = ("127.0.0.1", "localhost", "::1")

EXEMPTIONS = ("NO_PROXY", "no_proxy")
"""Libraries read either of these; each gets the hosts of both, so the operator's entries in one
still count.
"""


def direct_client(**options: Any) -> httpx.Client:
    """An HTTP client that ignores the environment's proxies and uses its certificates.

    Args:
        options: of `httpx.Client`.
    """
    return httpx.Client(mounts={"http://": None, "https://": None, "all://": None}, **options)


def get(url: str, timeout: float = 5.0) -> httpx.Response:
    """Send a GET request to one of the store's services.

    Args:
        url: address.
        timeout: in seconds.

    Raises:
        httpx.HTTPError: if it does not answer.
    """
    with direct_client(timeout=timeout) as client:
        return client.get(url)


def exempt_from_proxies(*urls: str) -> None:
    """Exempt this machine's loopback and some hosts from proxies, for libraries that open their own
    connections (MLflow's client, gRPC), here and in child processes.

    Args:
        urls: addresses of the store's services; those without a host are ignored.
    """
    hosts = [host for host in (urlsplit(url).hostname for url in urls) if host]
    known = [
        host.strip()
        for name in EXEMPTIONS
        for host in os.environ.get(name, "").split(",")
        if host.strip()
    ]
    exempt = ",".join(dict.fromkeys([*known, *LOOPBACK, *hosts]))
    os.environ.update(dict.fromkeys(EXEMPTIONS, exempt))
