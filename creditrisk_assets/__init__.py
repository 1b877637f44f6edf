"""The credit-default model in production: one package for each subject, and a thin Dagster layer
over them in `defs`.
"""
