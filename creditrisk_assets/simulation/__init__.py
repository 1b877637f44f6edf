"""Simulated customers and rehearsals: generator, scenarios, drill, demo, and the processes that
they start. Nothing in production imports it.
"""
