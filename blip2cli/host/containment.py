"""Files that must be inside a folder, whatever their names: the rule for `--image-root` of results."""

from __future__ import annotations

import errno
import os
import stat
import urllib.parse
from pathlib import PurePath
from typing import BinaryIO

from blip2cli.host import storage

OUTSIDE = "outside the image root"


def is_below(root: str, name: str) -> bool:
    """Whether a file is really inside a folder: links are followed first. URLs are compared by their text."""
    if storage.is_url(root) or storage.is_url(name):
        return _is_below_url(root, name)
    return _parts_below(root, name) is not None


def open_below(root: str, name: str) -> BinaryIO:
    """A regular file inside a folder, open for reading.

    Its path is resolved first and then opened part by part without following links, so that a link that is put
    there meanwhile is not followed. Raises OSError: PermissionError for a file that is not inside the folder.
    """
    parts = _parts_below(root, name)
    if parts is None:
        raise PermissionError(errno.EACCES, OUTSIDE)
    base = os.path.realpath(root)
    if os.open not in os.supports_dir_fd:
        return open(os.path.join(base, *parts), "rb")
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        # without O_NONBLOCK, opening a pipe would wait
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def _parts_below(root: str, name: str) -> tuple[str, ...] | None:
    """The real path of a file from a folder on, in its parts; None if it is not inside the folder."""
    try:
        base, real = PurePath(os.path.realpath(root)), PurePath(os.path.realpath(name))
    except ValueError:  # a NUL in the name
        return None
    if base not in real.parents:
        return None
    return real.relative_to(base).parts


def _is_below_url(root: str, name: str) -> bool:
    start = root.rstrip("/") + "/"
    if not storage.is_url(root) or not name.startswith(start):
        return False
    parts = urllib.parse.unquote(name[len(start) :]).replace("\\", "/").split("/")
    return not {".", ".."} & set(parts)
