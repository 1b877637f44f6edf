"""HTML pages for people: customer, model, monitoring. They show what the endpoints answer and
compute nothing of their own.
"""
