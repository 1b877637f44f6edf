"""Simulated customers, scenarios, drill and demo, and the processes that they start. Production
code imports nothing from here.
"""
