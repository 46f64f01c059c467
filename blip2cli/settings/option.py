"""What an option is, and what every record of options has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from blip2cli.errors import UsageError


@dataclass(frozen=True)
class Opt:
    """How a field appears on the command line: its help, extra flag names, bounds, and
    the variable that sets it."""

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    env: str | None = None
    parse: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class Arg:
    """How the field of a command's arguments appears on the command line."""

    metavar: str
    help: str


@dataclass(frozen=True)
class Options:
    """A record of options.

    Fields that a user can set are annotated with their `Opt`, or `Arg`.
    """

    panel: ClassVar[str | None] = None
    """The heading of these options in the help."""

    def validate(self) -> None:
        """Check the values, also against each other.

        Raises UsageError, which names the option.
        """


AllowPrivate = Annotated[bool, Opt("With --allow-remote: also from this machine and private networks.")]
ManifestColumn = Annotated[str | None, Opt("Manifest column with the image's path or bytes.", metavar="NAME")]
Quiet = Annotated[bool, Opt("Show no progress and no summary on stderr.", ("--quiet", "-q"))]
"""Options that several records have."""

InputsOfRun = Annotated[
    tuple[str, ...],
    Opt("Input of the run, to find images that are not at their row's name; may be repeated.", metavar="INPUT"),
]
InputsOfEmbed = Annotated[
    tuple[str, ...],
    Opt("Input of embed, to find images that are not at their row's name; may be repeated.", metavar="INPUT"),
]
ImageColumn = Annotated[str | None, Opt("Column with the image's path or bytes.", metavar="NAME")]
ImageRoot = Annotated[
    str | None,
    Opt(
        "Folder of the images; nothing outside it is read. [default: the current, else that of the results]",
        metavar="FOLDER",
    ),
]
AllowRemote = Annotated[bool, Opt("Fetch the images behind URLs.")]
"""Options of commands that read results, and find their images."""


def check_private(allow_private: bool, allow_remote: bool) -> None:
    """Check that --allow-private is not given alone. Raises UsageError."""
    if allow_private and not allow_remote:
        raise UsageError("--allow-private needs --allow-remote", "Give both, or neither.")


def check_page(path: Path | None) -> None:
    """Check that --report, if it is given, names an HTML page, and nothing that --overwrite would replace by one.

    Raises UsageError.
    """
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path} does not end in .html", f"Type: --report {path.with_suffix('.html')}")
