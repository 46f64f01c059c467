"""The hub and its cache on this machine: which checkpoints are there, getting others, and why one cannot be had.

Only `get` touches the network.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.catalogue import KNOWN
from blip2cli.model.checkpoint.files import has_tokenizer, weight_files

logger = logging.getLogger(__name__)

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched from the hub: no pickled weights, no code."""

USE_ANOTHER = "Check the name and the network, or use --model FOLDER (a local checkpoint) or --model tiny (bundled)."

PATH_SIGNS = ("/", "./", "../", "~", "\\", ".\\")
"""Beginnings of what can only be a path."""

ALIKE = 0.75
"""From this similarity on a name is taken for another that is misspelt (difflib's ratio)."""

FULL = (errno.ENOSPC, errno.EDQUOT)

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotHere(CheckpointError):
    """The checkpoint is not on this machine."""


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
    """Whether a folder has all its weights, which an interrupted download does not have."""
    try:
        return (folder / "config.json").exists() and bool(weight_files(folder))
    except CheckpointError:
        return False


def check_name(name: str) -> None:
    """Refuse a name that can be neither a folder nor a hub id, or is a misspelt one. Raises CheckpointError.

    Nothing heavy is imported and no network is asked, so that it can be told at once.
    """
    if name == "tiny" or os.path.isdir(name):
        return
    if os.path.exists(name):
        raise CheckpointError(f"{name} is a file", "Give the folder that holds config.json and the weights.")
    if "://" in name:
        raise CheckpointError(f"{name} is a URL", f"Give only the hub id: {'/'.join(name.split('/')[3:5])}")
    if name.startswith(PATH_SIGNS) or name.endswith("/") or name.count("/") > 1:
        raise CheckpointError(f"there is no folder {name}", "Check the path.")
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise CheckpointError(f"there is no folder {name}, and it is not a valid hub id", USE_ANOTHER) from None
    meant = nearest(name)
    if "/" not in name and meant and not _is_begun(name):
        raise CheckpointError(f"there is no folder {name}, and no checkpoint of that name", f"Did you mean {meant}?")


def _is_begun(name: str) -> bool:
    """Whether anything of a hub id is in the cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}").exists()


def nearest(name: str) -> str | None:
    """The known checkpoint whose name is most like this one, if any is."""
    names = {"tiny": "tiny"}
    for known in KNOWN:
        names[known.name.lower()] = names[known.name.partition("/")[2].lower()] = known.name
    found = get_close_matches(name.lower(), names, n=1, cutoff=ALIKE)
    return names[found[0]] if found else None


def get(name: str, revision: str | None, fetch: bool) -> Path:
    """The folder of a hub id: in the cache, or fetched now if `fetch`.

    What is in the cache whole is used as it is, without asking the hub: the same run gives the same rows tomorrow.

    Raises CheckpointError that says why the hub did not give it, or NotHere where it was not to be asked.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=FILES))
        if complete(folder) and has_tokenizer(folder):
            return folder
    except Exception as error:  # it is not in the cache, or only in part
        logger.debug("%s: %s", name, error)
    if not fetch:
        raise NotHere(f"the checkpoint {name} is not cached", USE_ANOTHER)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except Exception as error:  # the hub's own, and those of its HTTP client and sockets
        logger.debug("%s: %s", name, error)
        raise _refused(name, revision, error) from error


def _refused(name: str, revision: str | None, error: Exception) -> CheckpointError:
    """Why the hub did not give a checkpoint, and what to do."""
    for cause in _causes(error):
        told = _disk(cause) or _answer(name, revision, cause)
        if told:
            return CheckpointError(f"cannot get the checkpoint {name}: {told[0]}", told[1])
    how_far = "only partly" if _is_begun(name) else "not"
    return CheckpointError(
        f"cannot get the checkpoint {name}: it is {how_far} cached, and the hub cannot be reached", _hint(name)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _disk(error: BaseException) -> tuple[str, str] | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    number = getattr(error, "errno", None)
    if number in FULL:
        return f"the disk of {HF_HUB_CACHE} is full", "Free some space, or set HF_HOME to a folder on another disk."
    if number in NOT_WRITABLE:
        return f"{HF_HUB_CACHE} cannot be written to", "Set HF_HOME to a writable folder."
    return None


def _answer(name: str, revision: str | None, error: BaseException) -> tuple[str, str] | None:
    """What the hub answered; None where the error is not an answer of the hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated", "Ask for access on its page on the hub, then log in with `hf auth login`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision}", "Give --revision a branch, tag or commit that it has, or leave it out."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no folder {name}, and nothing of that name on the hub, or it is private", _hint(name)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "it is not cached, and HF_HUB_OFFLINE is set", USE_ANOTHER
    if isinstance(error, errors.HfHubHTTPError):
        return _status(error)
    return None


def _status(error: BaseException) -> tuple[str, str] | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return None
    if status in (401, 403):
        return f"the hub does not allow it (HTTP {status})", "Log in with `hf auth login`, or check the token's rights."
    if status == 429:
        return "too many requests to the hub (HTTP 429)", "Wait some minutes, or log in with `hf auth login`."
    return f"the hub answered HTTP {status}", "Try again later, or use --model FOLDER (a local checkpoint)."


def _hint(name: str) -> str:
    meant = nearest(name)
    return f"Did you mean {meant}?" if meant and meant != name else USE_ANOTHER
