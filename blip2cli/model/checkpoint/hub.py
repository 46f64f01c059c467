"""The Hugging Face hub and its cache: which checkpoints are cached, downloading others,
and why a download fails.

Only `hub_folder` uses the network.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from blip2cli.errors import CheckpointError
from blip2cli.model.checkpoint.catalogue import PUBLISHED
from blip2cli.model.checkpoint.files import has_tokenizer, weight_files

logger = logging.getLogger(__name__)

DOWNLOADED = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""The files that are downloaded: no pickled weights, no code."""

USE_ANOTHER = "Check the name and the network, or use --model FOLDER (a local checkpoint) or --model tiny (bundled)."

PATH_SIGNS = ("/", "./", "../", "~", "\\", ".\\")
"""What begins with one of these can only be a path."""

SIMILAR = 0.75
"""The similarity (difflib's ratio) from which on a name counts as a known one that is
misspelt."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)

Fault = tuple[str, str]
"""What is wrong, and what to do."""


class NotCached(CheckpointError):
    """The checkpoint is not on this machine."""


@dataclass(frozen=True)
class CachedModel:
    """A cached model, in the revision that a plain run uses; `whole` if none of its
    weights are missing."""

    revision: str
    folder: Path
    size: int
    whole: bool


def cached_models() -> dict[str, CachedModel]:
    """All cached models by hub id, BLIP-2 or not; of several revisions that of `main`, or
    else the newest."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    models = {}
    for repository in repositories:
        if repository.repo_type == "model" and repository.revisions:
            used = max(repository.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
            folder = used.snapshot_path
            whole = is_complete(folder)
            models[repository.repo_id] = CachedModel(used.commit_hash, folder, used.size_on_disk, whole)
    return models


def is_complete(folder: Path) -> bool:
    """Whether a folder has all its weights; after an interrupted download it does not."""
    try:
        return (folder / "config.json").exists() and bool(weight_files(folder))
    except CheckpointError:
        return False


@contextmanager
def named_by(option: str) -> Iterator[None]:
    """A context in which errors about a checkpoint name the option that names it, if it
    is not --model."""
    try:
        yield
    except CheckpointError as error:
        if option == "--model":
            raise
        raise type(error)(f"{option}: {error.message}", error.hint.replace("--model", option)) from None


def check_model_name(name: str) -> None:
    """Check that a name may be a folder or a hub id, and is not a known name misspelt.
    Raises CheckpointError.

    Nothing heavy is imported and no network is used, so that a wrong name is reported at
    once.
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
    suggestion = closest_name(name)
    if "/" not in name and suggestion and not _is_partly_cached(name):
        raise CheckpointError(
            f"there is no folder {name}, and no checkpoint of that name", f"Did you mean {suggestion}?"
        )


def _is_partly_cached(name: str) -> bool:
    """Whether any part of a hub id's checkpoint is cached."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}").exists()


def closest_name(name: str) -> str | None:
    """The published checkpoint whose name is most similar to this one; None if none is
    similar."""
    full_names = {"tiny": "tiny"}
    for checkpoint in PUBLISHED:
        full = checkpoint.name
        short = full.partition("/")[2]
        full_names[full.lower()] = full_names[short.lower()] = full
    matches = get_close_matches(name.lower(), full_names, n=1, cutoff=SIMILAR)
    return full_names[matches[0]] if matches else None


def hub_folder(name: str, revision: str | None, fetch: bool) -> Path:
    """The folder of a hub id in the cache; if `fetch`, it is downloaded if necessary.

    A complete checkpoint is used as it is, without asking the hub, so that the same run
    gives the same rows tomorrow.

    Raises CheckpointError, which says why the download failed; NotCached if there was to
    be no download.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=DOWNLOADED))
        if is_complete(folder) and has_tokenizer(folder):
            return folder
    except Exception as error:  # it is not cached, or only partly
        logger.debug("%s: %s", name, error)
    if not fetch:
        raise NotCached(f"the checkpoint {name} is not cached", USE_ANOTHER)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=DOWNLOADED))
    except Exception as error:  # errors of the hub, of its HTTP client and of sockets
        logger.debug("%s: %s", name, error)
        raise _download_error(name, revision, error) from error


def _download_error(name: str, revision: str | None, error: Exception) -> CheckpointError:
    """Why a checkpoint could not be downloaded, and what to do."""
    for cause in _causes(error):
        fault = _disk_fault(cause) or _hub_fault(name, revision, cause)
        if fault:
            what, hint = fault
            return CheckpointError(f"cannot get the checkpoint {name}: {what}", hint)
    cached = "only partly" if _is_partly_cached(name) else "not"
    return CheckpointError(
        f"cannot get the checkpoint {name}: it is {cached} cached, and the hub cannot be reached", _name_hint(name)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _disk_fault(error: BaseException) -> Fault | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    number = error.errno if isinstance(error, OSError) else None
    if number in DISK_FULL:
        return f"the disk of {HF_HUB_CACHE} is full", "Free some space, or set HF_HOME to a folder on another disk."
    if number in NOT_WRITABLE:
        return f"{HF_HUB_CACHE} cannot be written to", "Set HF_HOME to a writable folder."
    return None


def _hub_fault(name: str, revision: str | None, error: BaseException) -> Fault | None:
    """What the hub answered; None where the error is not an answer of the hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated", "Ask for access on its page on the hub, then log in with `hf auth login`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision}", "Give --revision a branch, tag or commit that it has, or leave it out."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no folder {name}, and nothing of that name on the hub, or it is private", _name_hint(name)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "it is not cached, and HF_HUB_OFFLINE is set", USE_ANOTHER
    if isinstance(error, errors.HfHubHTTPError):
        return _http_fault(error)
    return None


def _http_fault(error: BaseException) -> Fault | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return None
    if status in (401, 403):
        return f"the hub does not allow it (HTTP {status})", "Log in with `hf auth login`, or check the token's rights."
    if status == 429:
        return "too many requests to the hub (HTTP 429)", "Wait some minutes, or log in with `hf auth login`."
    return f"the hub answered HTTP {status}", "Try again later, or use --model FOLDER (a local checkpoint)."


def _name_hint(name: str) -> str:
    suggestion = closest_name(name)
    return f"Did you mean {suggestion}?" if suggestion and suggestion != name else USE_ANOTHER
