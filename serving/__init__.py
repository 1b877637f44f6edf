"""The HTTP API, which serves the champion that the `champion` asset names."""
