"""Health check of a container: `python -m creditrisk_assets.health_probe ADDRESS`, which exits with
0 if the service there is healthy and with 1 otherwise.

An address `grpc://host:port` is that of a code server: it is asked the question of `dagster api
grpc-health-check` without the import of Dagster, which takes seconds of a core. An address that
begins with `http://` must answer with a status below 400.
"""

import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

GRPC_SERVICE = "DagsterApi"
TIMEOUT_SECONDS = 5.0


def is_healthy(address: str) -> bool:
    """True if the service at an address says that it is healthy.

    Raises:
        ValueError: if the address is of neither kind.
    """
    parts = urlsplit(address)
    if parts.scheme == "grpc" and parts.port:
        return _code_server_is_healthy(parts.netloc)
    if parts.scheme == "http" and parts.hostname:
        return _web_server_is_healthy(address)
    raise ValueError(f"address {address!r}; valid: grpc://host:port or http://host:port/path")


def _code_server_is_healthy(place: str) -> bool:
    import grpc
    import grpc_health.v1.health_pb2 as messages
    import grpc_health.v1.health_pb2_grpc as health

    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        question = messages.HealthCheckRequest(service=GRPC_SERVICE)
        try:
            answer = health.HealthStub(channel).Check(question, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == messages.HealthCheckResponse.SERVING)


def _web_server_is_healthy(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=TIMEOUT_SECONDS):
            return True
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_healthy(sys.argv[1]) else 1)
