"""A run: what it comes to (plan), and the flow of rows through it."""
