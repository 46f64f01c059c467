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
from blip2cli.host.retries import retried
from blip2cli.outputs.formats import Output
from blip2cli.outputs.journal import NoJournal, parts_folder
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.target import Target


class StandaloneShard:
    """A shard that is being written, in a folder of its own, so that two that write the
    same shard do not collide.

    `output` takes its rows. Behind a URL the shard is written on this machine first. As a
    context, it is removed at the end unless it was published. Raises OutputError.
    """

    def __init__(self, target: Target, layout: Layout, number: int) -> None:
        self.paths: list[Any] = [target.path / name.format(number) for name in target.format.shard_files]
        self.remote = target.is_remote
        try:
            if self.remote:
                self.folder = Path(tempfile.mkdtemp(prefix="blip2-"))
            else:
                self.folder = parts_folder(target.path) / f"{number:05}-{uuid4().hex}"
                self.folder.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self.output: Output = target.format.make(self.folder / self.paths[0].name, layout, NoJournal())

    def __enter__(self) -> StandaloneShard:
        return self

    def __exit__(self, *failure: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self) -> None:
        """Finish the shard and give its files their names."""
        self.output.finish()
        try:
            for path in self.paths:
                self._put(self.folder / path.name, path)
        except OSError as error:
            raise self._unwritable(error) from None

    def _put(self, written: Path, path: Any) -> None:
        if self.remote:
            retried(lambda: path.fs.put_file(str(written), path.path))
        else:
            os.makedirs(path.parent, exist_ok=True)
            publish(written, path)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.paths[0]}: {reason(error)}",
            "Every node must be able to write there; continue with --resume.",
        )


def attempts_at(target: Target, number: int) -> int:
    """How many attempts at a shard are under way, or died; of those behind a URL nobody
    knows."""
    if target.is_remote:
        return 0
    return sum(1 for _ in parts_folder(target.path).glob(f"{number:05}-*"))
