"""Subcommands that are not runs over a collection: one file or folder for each command."""
