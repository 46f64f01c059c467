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
    """Whether Java is installed."""
    return shutil.which("java") is not None


def run(arguments: Sequence[str], stdin: str = "") -> str:
    """The output of a Java program for a text. Raises Blip2Error if it fails."""
    try:
        with fixed_locale():
            done = subprocess.run(["java", *arguments], input=stdin.encode("utf-8", "replace"), capture_output=True)
    except OSError as error:
        raise Blip2Error(f"Java cannot be started: {reason(error)}", "Check that `java -version` works.") from None
    if done.returncode:
        raise Blip2Error(
            f"Java failed: {complaint_in(done.stderr)}",
            "Check that `java -version` works, and that there is enough memory.",
        )
    return done.stdout.decode("utf-8", "replace")


@contextmanager
def fixed_locale() -> Iterator[None]:
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
    """The first line of a Java program's error."""
    lines = stderr.decode("utf-8", "replace").splitlines()
    messages = [line for line in lines if line.strip() and not line.startswith(("Picked up", "\tat "))]
    return " ".join((messages or ["it gave no message"])[0].split())[:200]
