"""What lies in the hub's cache on this machine. The network is never touched here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cached:
    """A model of the cache in the revision that a plain run uses; `whole` where none of its weights are missing."""

    revision: str
    folder: Path
    size: int
    whole: bool


def cached_models() -> dict[str, Cached]:
    """All models of the cache, by hub id, BLIP-2 or not; of several revisions that of `main`, or the newest."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    found = {}
    for repository in repositories:
        if repository.repo_type == "model" and repository.revisions:
            used = max(repository.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
            folder = used.snapshot_path
            found[repository.repo_id] = Cached(used.commit_hash, folder, used.size_on_disk, complete(folder))
    return found


def complete(folder: Path) -> bool:
    """Whether a folder has all its weights, which an interrupted download has not."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return all((folder / shard).exists() for shard in shards)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # another file altogether
            return False
    return (folder / "config.json").exists() and (folder / "model.safetensors").exists()
