"""Measurements that the documentation quotes; run by hand, each as `python -m
benchmarks.<name>`.
"""
