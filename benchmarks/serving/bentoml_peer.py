"""The bundle's decision graph behind BentoML, for `benchmarks.serving.throughput --bentoml`. It
runs in an environment of its own.
"""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Model:
    """PD and score of rows, by the graph that `BUNDLE_GRAPH` names."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["BUNDLE_GRAPH"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> dict[str, list[float]]:
        """Of each row its PD and score."""
        probability, score = self.session.run(
            ["default_probability", "score"], {"raw": np.array(rows, dtype=np.float32)}
        )
        return {"default_probability": probability.tolist(), "score": score.tolist()}
