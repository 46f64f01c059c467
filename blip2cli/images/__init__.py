"""From rows to batches of pixels: fetching, decoding, and the processes that do both."""
