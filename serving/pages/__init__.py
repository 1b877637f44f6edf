"""HTML pages for people: customer, model, monitoring. Computation belongs in the endpoints and the
loop.
"""
