"""What runs the credit-default model: domain code in rooms by subject, with a thin Dagster layer
over it in `defs`.
"""
