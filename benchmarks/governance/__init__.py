"""Benchmarks of governance."""
