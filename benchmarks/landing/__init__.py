"""Benchmarks of landing."""
