"""What a run writes and keeps, as tests look at it and tamper with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2cli.outputs.commits import Commit, line_of
from blip2cli.outputs.journal import hidden_beside, parts_folder, read_journal


def hidden(out: Path | str) -> Path:
    """The hidden file of an output that is a file or a folder of shards."""
    return hidden_beside(Path(out))


def parts(out: Path | str) -> Path:
    return parts_folder(Path(out))


def committed(out: Path | str) -> Commit:
    """What is committed last; nothing where nothing is on record."""
    record = read_journal(hidden(out))
    return record.commit if record else Commit()


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def sign(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write records as a journal of whole lines."""
    path.write_bytes(b"".join(line_of({k: v for k, v in record.items() if k != "check"}) for record in records))


def files(*roots: Path | str) -> dict[str, bytes]:
    """All that lies below some folders, or at some files, byte for byte."""
    found = [path for root in map(Path, roots) for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return {str(path): path.read_bytes() for path in found if path.is_file()}


class Killed(BaseException):
    """What ends a run as SIGKILL does: nothing catches it on its way."""


def texts(folder: Path | str) -> dict[str, str]:
    """The text files in a folder, by their names there."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.txt"))}
