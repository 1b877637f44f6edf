"""Drift, performance, estimates, triage, alerting and the health of the loop, as pure functions.
Dagster code belongs in `defs`.
"""
