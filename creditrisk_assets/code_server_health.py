"""Health check of a code server: `python -m creditrisk_assets.code_server_health PORT`.

It asks the question of `dagster api grpc-health-check` without the import of Dagster, which takes
seconds of a core.
"""

import sys

import grpc
import grpc_health.v1.health_pb2 as messages
import grpc_health.v1.health_pb2_grpc as health

SERVICE = "DagsterApi"
TIMEOUT_SECONDS = 5.0


def is_healthy(port: int) -> bool:
    """True if the code server on a port of this machine serves."""
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        question = messages.HealthCheckRequest(service=SERVICE)
        try:
            answer = health.HealthStub(channel).Check(question, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == messages.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_healthy(int(sys.argv[1])) else 1)
