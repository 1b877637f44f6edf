"""Operation of the API: processes beside the workers, metrics, traces, logs."""
