"""From rows to batches of pixels: fetching and decoding, and the processes that do both."""
