"""This machine: its files, terminal, signals, clock and processor."""
