"""What is run together."""

import dagster as dg

train = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.assets("raw_data", "features", "model", "champion"),
    description="From the history to a champion.",
)

score_production = dg.define_asset_job(
    "score_production",
    selection=dg.AssetSelection.assets("production_batch", "production_scores", "drift_report"),
    description="One day: validated, scored by the champion, checked for drift.",
)

assess_performance = dg.define_asset_job(
    "assess_performance",
    selection=dg.AssetSelection.assets("outcomes", "performance_report"),
    description="One day: its outcomes, and how its scores turned out.",
)

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.assets("candidate_model", "champion"),
    description="From matured production to a challenger, and the verdict on it.",
)
