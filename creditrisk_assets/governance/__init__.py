"""Promotion gate, verdicts, ledger, retrain policy, credit policy and model card. Pure functions
and documents; Dagster belongs in `defs`.
"""
