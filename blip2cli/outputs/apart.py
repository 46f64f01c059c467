"""One shard written by itself, wherever its rows are computed, and published whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from blip2cli.errors import OutputError, reason
from blip2cli.host.files import publish
from blip2cli.host.storage import retried
from blip2cli.outputs import Output, Target
from blip2cli.outputs.commits import Commit
from blip2cli.outputs.journal import parts_folder
from blip2cli.outputs.layout import Layout


class Unkept:
    """The journal of a shard that nobody goes on with: it is written anew."""

    def __init__(self) -> None:
        self.commit = Commit()

    def add(self, commit: Commit) -> None:
        self.commit = commit


class ShardApart:
    """A shard in the making, in a folder of its own; two that write the same one do not meet.

    `output` takes its rows. Behind a URL the shard is written on this machine first. Raises OutputError.
    """

    def __init__(self, target: Target, layout: Layout, number: int) -> None:
        self.places: list[Any] = [target.out / name.format(number) for name in target.format.shard_files]
        self.remote = not isinstance(target.out, Path)
        try:
            if self.remote:
                self.folder = Path(tempfile.mkdtemp(prefix="blip2-"))
            else:
                self.folder = parts_folder(target.out) / f"{number:05}-{uuid4().hex}"
                self.folder.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self.output: Output = target.format.make(self.folder / self.places[0].name, layout, Unkept())

    def publish(self) -> None:
        """Finish the shard and put it in its place."""
        self.output.finish()
        try:
            for place in self.places:
                self._put(self.folder / place.name, place)
        except OSError as error:
            raise self._unwritable(error) from None
        self.discard()

    def discard(self) -> None:
        """Remove what is not published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _put(self, ours: Path, place: Any) -> None:
        if self.remote:
            retried(lambda: place.fs.put_file(str(ours), place.path))
        else:
            os.makedirs(place.parent, exist_ok=True)
            publish(ours, place)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.places[0]}: {reason(error)}",
            "Every node must reach it; go on with --resume.",
        )


def attempts_at(target: Target, number: int) -> int:
    """How many attempts at a shard are under way, or died; of those behind a URL nobody knows."""
    if not isinstance(target.out, Path):
        return 0
    return sum(1 for _ in parts_folder(target.out).glob(f"{number:05}-*"))
