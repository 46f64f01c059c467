"""Files of features, as `blip2 embed` writes them, and what can be found in them: `open_features` (`files.py`) reads
them a block at a time, `best_rows` (`exact.py`, or `index.py` by an index) finds the rows nearest to a vector.

Nothing here needs a model: who searches brings the vectors of the queries.
"""
