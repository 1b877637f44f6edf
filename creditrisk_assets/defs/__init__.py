"""The Dagster layer, thin: assets, checks, sensors, jobs, resources, partitions."""
