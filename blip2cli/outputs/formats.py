"""`Format`: what is to be known of a format of results, and the protocol of the outputs that write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from blip2cli.host.imports import load_object
from blip2cli.outputs.commits import Commit
from blip2cli.records import Result, Row


@dataclass(frozen=True)
class Format:
    """One format of results: what writes it, and where it may be used.

    Args:
        cls: the class that writes it, made from (path, Layout, CommitLog); empty with an `opener`.
        opener: a function of (Target, OutputSettings, Layout, Header) that gives the output, for formats that keep no
            journal of their rows.
        suffixes: those of its files, the first that of its shards.
        tasks: the tasks whose rows it can hold; empty for all.
        destination: what --out means: a "file", or a folder of shards if it is a folder; always a folder of "shards";
            the "index" file of a folder that others fill; a folder of texts "beside" the images; or a "stream".
        index: the name of that index file.
        files: the names of a shard's files, with a place for its number, where they are not one file with the suffix.
        errors_file: the name of the file that its error rows go to, with a place for the name of the output; empty
            where they stand among the others.
        into_images: whether it may be written into the folder that is read.
        copies_images: whether it needs the bytes of images, which are otherwise given up once decoded.
        one_caption: whether it holds one caption for each image.
        texts_alone: whether it holds nothing of a row but its text and the ids of its image, so that it has no place
            for maps.
        needs_column: a column of the input that it needs, and what to do where it is missing.
        no_retry: what to do instead of --retry-errors; empty for formats whose rows can be read back.
        no_update: what to do instead of --update; empty for formats whose rows have the names of their input rows.
        resumes: whether --resume means something.
        adds_to_existing: whether --existing means something.
    """

    cls: str = ""
    opener: str = ""
    suffixes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    destination: Literal["file", "shards", "index", "beside", "stream"] = "file"
    index: str = ""
    files: tuple[str, ...] = ()
    errors_file: str = ""
    into_images: bool = False
    copies_images: bool = False
    one_caption: bool = False
    texts_alone: bool = False
    needs_column: tuple[str, str] | None = None
    no_retry: str = ""
    no_update: str = ""
    resumes: bool = True
    adds_to_existing: bool = False

    @property
    def has_journal(self) -> bool:
        """Whether its rows are committed to a journal, so that they are there to be found."""
        return not self.opener

    @property
    def shard_files(self) -> tuple[str, ...]:
        """Names of a shard's files below the folder, with a place for its number."""
        return self.files or (f"part-{{:05}}{self.suffixes[0]}",)

    @property
    def wanted_out(self) -> str:
        """What to give as --out, as hints say it."""
        if self.destination in ("shards", "index"):
            return "Give a folder, for example --out results."
        if not self.suffixes:
            return "Give a file, for example --out results.json."
        return f"Give a file or a folder, for example --out results{self.suffixes[0]}."

    def make(self, path: Any, layout: Any, log: Any) -> Output:
        """The output that writes one file or shard, from (path, Layout, CommitLog)."""
        output: Output = load_object(self.cls)(path, layout, log)
        return output


class Output(Protocol):
    """Takes rows in input order. `committed` is what an earlier run has committed."""

    committed: Commit

    def wants(self, row: Row) -> bool:
        """Whether a row is to be computed; asked for every row, in order."""
        return True

    def skipped(self) -> str:
        """How many rows it did not want, why, and how to have them computed; empty if it wanted all."""
        return ""

    def write(self, results: Sequence[Result]) -> None:
        """Take rows, the last of which is its input row's last; they may wait in memory."""

    def commit(self) -> None:
        """Put what was taken on disk, for good."""

    def finish(self) -> None:
        """Commit, and put the output in its final form."""

    def records(self) -> Iterator[dict[str, Any]]:
        """The committed rows, by the names of their columns; none where they cannot be read back."""
        return iter(())

    def values(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The values of these columns in the committed rows. A format overrides it that need not read all columns."""
        for record in self.records():
            yield tuple(record[name] for name in names)
