"""Numbers in the forms that options have for them: 3/16, 2-16, or auto."""

from __future__ import annotations

import re

from blip2cli.errors import UsageError


def share_named(shard: str) -> tuple[int, int]:
    """(I, N) of --shard I/N, I counted from 1. Raises UsageError."""
    match = re.fullmatch(r"0*(\d{1,9})/0*(\d{1,9})", shard, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"--shard {shard} is not a part such as 3/16",
            "Parts count from 1: 1/16 to 16/16.",
        )
    return int(match[1]), int(match[2])


def batch_size_named(batch_size: str) -> int | None:
    """The number of --batch-size; None for auto. Raises UsageError."""
    if batch_size == "auto":
        return None
    if not re.fullmatch(r"0*[1-9]\d{0,5}", batch_size, re.ASCII):
        raise UsageError(
            f"--batch-size {batch_size} is neither auto nor a number from 1 to 999999",
            "Try 16.",
        )
    return int(batch_size)


def replicas_named(replicas: str) -> tuple[int, int]:
    """The fewest and the most of --replicas, which are equal for a number. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", replicas, re.ASCII)
    if not match:
        raise UsageError(
            f"--replicas {replicas} is neither a number nor a range",
            "For example: 8, or 2-16.",
        )
    fewest, most = int(match[1]), int(match[2] or match[1])
    if not 1 <= fewest <= most:
        raise UsageError(
            f"--replicas {replicas} is not a range of numbers from 1",
            "For example: 2-16.",
        )
    return fewest, most


def check_cosine(name: str, value: float) -> None:
    """Check that a number can be a cosine. Raises UsageError, which names its option."""
    if not -1 <= value <= 1:
        raise UsageError(f"{name} {value:g} is not a cosine", "Give a number from -1 to 1, such as 0.95.")


def check_score(name: str, value: float, score: str) -> None:
    """Check that a number can be an "itm" or an "itc" score. Raises UsageError, which names its option."""
    lowest = 0 if score == "itm" else -1
    if not lowest <= value <= 1:
        raise UsageError(f"{name} {value:g} is not an {score.upper()} score", f"Scores are from {lowest} to 1.")
