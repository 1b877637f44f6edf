"""Decisions that were made: their log, their archive, their replay. Making one belongs in
`scoring`.
"""
