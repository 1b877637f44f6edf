"""What changed: drift, performance, estimates, triage, alerting, the health of the loop. Pure
functions; Dagster belongs in `defs`.
"""
