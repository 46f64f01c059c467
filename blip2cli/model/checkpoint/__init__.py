"""Checkpoints: finding one, checking it before anything is loaded, loading it.

`find.py` begins, and `load.py` ends it. Nothing is imported here, so that a name can be
checked without PyTorch.
"""
