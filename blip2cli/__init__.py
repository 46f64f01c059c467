"""blip2cli: run BLIP-2 over image collections, from the command line or from Python."""

__version__ = "0.1.0"
