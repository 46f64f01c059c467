"""Measuring: `make bench` (against reference loops) and `blip2 bench` (the user's own machine and model)."""
