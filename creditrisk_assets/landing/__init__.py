"""Arrival of files: listing, reading, validation, duplicates, ingestion. The contract that they
are checked against belongs in `portfolio`.
"""
