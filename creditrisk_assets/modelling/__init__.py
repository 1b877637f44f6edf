"""How a model is made and judged."""
