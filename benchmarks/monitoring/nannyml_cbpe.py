"""NannyML's own estimates, for `benchmarks.monitoring.performance`: run by a Python that has
nannyml, by nothing of this project.

    python nannyml_cbpe.py reference.parquet days.parquet ROWS_A_DAY answers.parquet

Reference and days have the columns y, p and d (outcome, PD, decision); days of equal size stand one
after another. The answers have one row a day: NannyML's AUC with its sampling error and bounds, and
its bad rate, that of its expected confusion matrix.
"""

import sys

import pandas as pd
from nannyml import CBPE

reference, days = (pd.read_parquet(path) for path in sys.argv[1:3])
rows = int(sys.argv[3])
columns = {
    "y_true": "y",
    "y_pred_proba": "p",
    "y_pred": "d",
    "problem_type": "classification_binary",
}
estimator = CBPE(metrics=["roc_auc", "confusion_matrix"], chunk_size=rows, **columns)
answers = estimator.fit(reference).estimate(days).filter(period="analysis").to_df()
estimated = pd.DataFrame(
    {
        "auc": answers[("roc_auc", "value")],
        "auc_error": answers[("roc_auc", "sampling_error")],
        "auc_low": answers[("roc_auc", "lower_confidence_boundary")],
        "auc_high": answers[("roc_auc", "upper_confidence_boundary")],
        "bad_rate": (answers[("true_positive", "value")] + answers[("false_negative", "value")])
        / rows,
    }
)
estimated.to_parquet(sys.argv[4])
