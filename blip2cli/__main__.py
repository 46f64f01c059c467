"""`python -m blip2cli` is `blip2`."""

from blip2cli.cli import main

main()
