"""The Dagster layer: assets, checks, sensors, jobs, resources and partitions. Rules and
computations belong in the other packages.
"""
