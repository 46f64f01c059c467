"""The columns of --scores."""

from blip2cli.records import Column


def score_columns(several: bool) -> tuple[Column, ...]:
    """The columns beside a text, or with `several` beside a list of texts."""
    if several:
        return (Column("logprobs", "numbers"), Column("probabilities", "numbers"))
    return (Column("logprob", "number"), Column("probability", "number"))
