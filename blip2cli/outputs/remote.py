"""A folder of shards behind a URL. The current shard is written here, and a shard is committed when it is there whole.

So a run that is killed computes the rows of its last shard again, and needs room for one shard on this machine.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from blip2cli.host.retries import retried
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
        for unpublished, published in zip(self._unpublished(self.shard), self._published(self.shard), strict=True):
            if unpublished.exists():
                self._copy(unpublished, published)
        self.journal.seal()

    def _make_folders(self) -> None:
        """Behind a URL folders are only names."""

    @staticmethod
    def _copy(local: Path, remote: Any) -> None:
        retried(lambda: remote.fs.put_file(str(local), remote.path))
        local.unlink()

    def _unpublish(self) -> None:
        for unpublished, published in zip(self._unpublished(self.shard), self._published(self.shard), strict=True):
            self._fetch(published, unpublished)

    @staticmethod
    def _fetch(remote: Any, local: Path) -> None:
        retried(lambda: remote.fs.get_file(remote.path, str(local)))
