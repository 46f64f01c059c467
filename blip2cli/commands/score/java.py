"""Java, in which the tokenizer, METEOR and SPICE of the COCO caption evaluation are written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from blip2cli.errors import Blip2Error, reason

SETTINGS = "-Duser.language=en -Duser.country=US"
"""METEOR writes and reads numbers as the user's country does, and pycocoevalcap knows a decimal point only."""


def installed() -> bool:
    """Whether there is a Java to run."""
    return shutil.which("java") is not None


def run(arguments: Sequence[str], stdin: str = "") -> str:
    """What a Java program writes when it is given a text. Raises Blip2Error where it fails."""
    try:
        with settled():
            done = subprocess.run(["java", *arguments], input=stdin.encode("utf-8", "replace"), capture_output=True)
    except OSError as error:
        raise Blip2Error(f"Java cannot be started: {reason(error)}", "Is `java -version` well?") from None
    if done.returncode:
        raise Blip2Error(f"Java failed: {complaint_in(done.stderr)}", "Is `java -version` well, and is there memory?")
    return done.stdout.decode("utf-8", "replace")


@contextmanager
def settled() -> Iterator[None]:
    """Inside, every Java program that is started has SETTINGS."""
    before = os.environ.get("JAVA_TOOL_OPTIONS")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before} {SETTINGS}" if before else SETTINGS
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAVA_TOOL_OPTIONS"]
        else:
            os.environ["JAVA_TOOL_OPTIONS"] = before


def complaint_in(stderr: bytes) -> str:
    """The first line of what a Java program complains of."""
    lines = stderr.decode("utf-8", "replace").splitlines()
    told = [line for line in lines if line.strip() and not line.startswith(("Picked up", "\tat "))]
    return " ".join((told or ["it says nothing"])[0].split())[:200]
