"""Decoding: the loop, caches, sampling, beam search, recorded steps, and the language
models a step at a time."""
