"""A run: its plan, and the flow of rows."""
