"""Servers that `benchmarks.serving.throughput` compares the API with: `python -m
benchmarks.serving.peers validate --port 9000`.
"""

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI

from creditrisk_assets.settings import Settings
from serving.http.schemas import request_model

Customer = request_model(Settings().portfolio)


def validate_only() -> FastAPI:
    """An endpoint as a FastAPI tutorial has it, which validates the same body and does nothing
    else.
    """
    app = FastAPI()

    @app.post("/predict")
    async def predict(customer: Customer) -> dict[str, Any]:  # type: ignore[valid-type]  # noqa: ARG001 - validated, no more
        return {"valid": True}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    return app


def main() -> None:
    """Serve it with uvicorn's fastest parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["validate"])
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(
        validate_only(),
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
