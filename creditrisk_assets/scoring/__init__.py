"""Scoring: bundles, their reference profiles, and scoring of files. Stored decisions belong in
`decisions`.
"""
