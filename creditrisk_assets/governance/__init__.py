"""Who may decide: the promotion gate and the retrain policy."""
