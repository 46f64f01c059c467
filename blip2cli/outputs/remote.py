"""A folder of shards behind a URL. The shard in hand is written here, and a shard is committed when it is there whole.

So a run that is killed computes the rows of its last shard again, and needs room for one shard on this machine.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from blip2cli.host.storage import retried
from blip2cli.outputs.shards import ShardedOutput


class RemoteShards(ShardedOutput):
    """The same shards, under the same names, behind a URL that fsspec writes to."""

    def finish(self) -> None:
        super().finish()
        self.journal.seal()

    def _workspace(self) -> Path:
        folder = tempfile.mkdtemp(prefix="blip2-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _publish(self) -> None:
        self._record()
        for ours, theirs in zip(self._in_hand(self.shard), self._published(self.shard), strict=True):
            if ours.exists():
                self._copy(ours, theirs)
        self.journal.seal()

    def _make_folders(self) -> None:
        """Behind a URL folders are but names."""

    @staticmethod
    def _copy(ours: Path, theirs: Any) -> None:
        retried(lambda: theirs.fs.put_file(str(ours), theirs.path))
        ours.unlink()

    def _take_back(self) -> None:
        for ours, theirs in zip(self._in_hand(self.shard), self._published(self.shard), strict=True):
            self._fetch(theirs, ours)

    @staticmethod
    def _fetch(theirs: Any, ours: Path) -> None:
        retried(lambda: theirs.fs.get_file(theirs.path, str(ours)))
