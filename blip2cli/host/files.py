"""Writing files: what a path really is, whether it may be written, and writing a file completely or not at all.

Everything that writes a file for a user checks it here first. Nothing here knows the content of files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import IO

from blip2cli.errors import OutputError, UsageError, reason
from blip2cli.host.storage import is_url

MOST_LINKS = 40
"""The largest number of symbolic links followed one after the other, as in Linux."""

HIDDEN = ".blip2"
"""The suffixes of the hidden files that runs keep."""

DESCRIPTORS = ("/proc/", "/sys/", "/dev/fd/")
"""Folders whose entries are open files of a process."""

DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

PERMISSION_HINT = "Choose another folder, or change its permissions."
"""What to do about a file or folder that may not be written."""

ROOM_HINT = "Free some space, or choose another folder."


def real_path(path: Path) -> Path:
    """The file or folder that a path leads to: links at its end are followed, also to a file that does not exist yet.

    A path that is not a link is returned unchanged. Raises UsageError for a device, a pipe, a socket, an open file
    (`/dev/stdout`), and links in a circle.
    """
    real = path
    for _ in range(MOST_LINKS):
        if real.name in ("", ".."):
            return Path(os.path.realpath(real))
        if f"{os.path.realpath(real.parent)}/".startswith(DESCRIPTORS):
            raise UsageError(
                f"{path} is a file that a process has open", "Give a file. To write to stdout, leave out the option."
            )
        try:
            real = real.parent / os.readlink(real)
        except (OSError, ValueError):  # not a link, or it does not exist
            _check_ordinary(path, real)
            return real
    raise UsageError(f"{path} is a symbolic link that leads back to itself", "Give a file.")


def _check_ordinary(path: Path, real: Path) -> None:
    if os.path.exists(real) and not os.path.isfile(real) and not os.path.isdir(real):
        raise UsageError(f"{path} is a device or a pipe", "Give a file.")


def check_name(path: Path) -> None:
    """Check that an output may have this name; it need not exist yet. Raises UsageError."""
    real = real_path(path)
    if real.name.startswith(".") and real.name.endswith(HIDDEN):
        raise UsageError(f"{path} is a name that blip2 uses for its own files", "Choose another name.")


def check_writable(path: Path) -> None:
    """Check that a file or folder can be written under this name. Raises UsageError."""
    check_name(path)
    real = real_path(path)
    folder = real.parent
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f"cannot write {path}: {folder} is not a folder", "Give a file in a folder.")
    if not os.path.isdir(folder):
        raise UsageError(f"cannot write {path}: there is no folder {folder}", f"Create it: mkdir -p {folder}")
    if os.path.exists(real) and not os.access(real, os.W_OK):
        raise UsageError(f"cannot write {path}: it is not writable", PERMISSION_HINT)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: {folder} is not writable", PERMISSION_HINT)


def check_new_file(path: Path, overwrite: bool, example: str = "") -> None:
    """Check that a file can be written and replaces nothing that must stay.

    Raises UsageError. `example` is the name of such a file, for the hint if a folder is given.
    """
    if os.path.isdir(real_path(path)):
        raise UsageError(f"{path} is a folder", f"Give a file in it: {path / (example or 'NAME')}")
    check_writable(path)
    if os.path.exists(path) and not overwrite:
        raise UsageError(f"{path} exists", "Use --overwrite to replace it, or choose another name.")


def same_file(one: Path | str, other: Path | str) -> bool:
    """Whether two names lead to the same file, also by links of either kind."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def special_file(name: str) -> str | None:
    """What a name on this machine stands for if it is not a regular file; None for one, and for what is not there."""
    if is_url(name):
        return None
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def check_regular(path: Path) -> None:
    """Check that nothing but a regular file has a name, as opening a pipe would wait for ever. Raises UsageError."""
    kind = special_file(str(path))
    if kind is not None:
        raise UsageError(f"{path} is {kind}, not a file", "Remove it, or choose another name for the output.")


def check_folder(path: Path) -> None:
    """Check that nothing but a folder has a name, as behind a link files would go elsewhere. Raises UsageError."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(f"{path} is not a folder", "Remove it, or choose another name for the output.")


def check_apart(outputs: Mapping[str, Path], inputs: Iterable[object]) -> None:
    """Check that no output would replace an input, a folder of inputs, or another output. Raises UsageError.

    Args:
        outputs: what is written, by the options that name it.
        inputs: what is read; texts that do not name a file are ignored.
    """
    names = [name for name in inputs if isinstance(name, str) and name != "-" and not is_url(name)]
    for option, path in outputs.items():
        folder = os.path.join(os.path.realpath(path), "") if os.path.isdir(path) else None
        for name in names:
            if same_file(name, path):
                raise UsageError(f"{name} is an input, and cannot be the output too", "Choose another name.")
            if folder is not None and os.path.realpath(name).startswith(folder):
                raise UsageError(f"{name} is an input in the output's folder {path}", f"Choose another {option}.")
    for (option, path), (other_option, other_path) in combinations(outputs.items(), 2):
        if same_file(path, other_path):
            raise UsageError(f"{option} and {other_option} are both {path}", "Choose another name for one of them.")


def cannot_write(path: object, error: OSError, hint: str = ROOM_HINT) -> OutputError:
    """The error for a file that cannot be written; `hint` is used if the disk is full."""
    if error.errno in DENIED:
        hint = PERMISSION_HINT
    elif error.errno == errno.ENAMETOOLONG:
        hint = "Choose a shorter name."
    return OutputError(f"cannot write {path}: {reason(error)}", hint)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file completely or not at all. Raises OutputError."""
    real = real_path(path)
    try:
        write_whole(real, lambda file: file.write(data))
    except OSError as error:
        raise cannot_write(path, error) from None


def write_whole(
    real: Path, write: Callable[[IO[bytes]], object], announce: Callable[[Path], None] | None = None
) -> None:
    """Write a file under a hidden name, and rename it to its own name when it is on disk.

    Raises OSError. `announce` is called with the hidden name when the file is complete, before it is renamed.
    """
    temporary = new_temporary(real)
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if announce is not None:
            announce(temporary)
        publish(temporary, real)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def new_temporary(path: Path) -> Path:
    """The hidden name under which a file is written before it is complete; nothing has it when this returns.

    What had it is removed: a file of a run that was killed, or a link that leads elsewhere. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.tmp{HIDDEN}")
    temporary.unlink(missing_ok=True)
    return temporary


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished, synced file to its name, and sync the folder. Raises OSError."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
