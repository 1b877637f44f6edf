"""What changed: population stability, the Evidently report, performance on matured rows."""
