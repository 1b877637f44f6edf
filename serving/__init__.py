"""The HTTP API: it serves whatever the `champion` asset says."""
