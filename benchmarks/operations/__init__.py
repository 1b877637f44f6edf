"""Measurements of a deployment as a whole."""
