"""Access to the API: keys, the rule of each route, rate limits."""
