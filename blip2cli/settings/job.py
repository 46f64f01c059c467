"""All settings of one run, and what a resumed run is compared by."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from blip2cli.errors import UsageError
from blip2cli.host.files import check_name
from blip2cli.settings.option import Options
from blip2cli.settings.shared import (
    EngineSettings,
    GenerationSettings,
    InputSettings,
    Kind,
    ModelSettings,
    OutputSettings,
)

T = TypeVar("T", bound="TaskOptions")


@dataclass(frozen=True)
class TaskOptions(Options):
    """The options of one task or command alone, and what they ask of a job."""

    takes: ClassVar[str] = "image files, folders, globs or manifests, or - for a list on stdin"
    """What may be given as INPUT."""

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that is needed."""
        return "generation"

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing to do without INPUT."""
        return True

    def ranker(self, model: ModelSettings) -> ModelSettings | None:
        """The retrieval checkpoint that ranks the texts that a model writes; None if they
        are not ranked.

        Raises UsageError if it is not named.
        """
        return None

    @property
    def takes_features(self) -> bool:
        """Whether INPUT may be files of features, in place of images."""
        return False

    @property
    def outputs(self) -> dict[str, Path | None]:
        """Files written in addition to the rows, by their option."""
        return {}


@dataclass(frozen=True)
class Job:
    """All settings of one run.

    `task` names the task, `options` is that task's own record; `from_features` says that the input is files of
    features, in place of images.
    """

    task: str
    options: TaskOptions
    input: InputSettings
    output: OutputSettings
    model: ModelSettings
    generation: GenerationSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    from_features: bool = False

    def __post_init__(self) -> None:
        for record in (self.input, self.output, self.model, self.generation, self.engine, self.options):
            record.validate()
        if not self.input.inputs and self.options.needs_input:
            raise UsageError("no input given", f"Give {self.options.takes}.")
        if self.output.update and self.input.shard is not None:
            raise UsageError(
                "--update cannot be used with --shard", "Parts of a grown input hold other rows than before."
            )
        for path in (self.output.out, *self.side_outputs.values()):
            if isinstance(path, Path):
                check_name(path)

    def options_as(self, kind: type[T]) -> T:
        """The task's own options, which are a record of this kind."""
        assert isinstance(self.options, kind)
        return self.options

    @property
    def side_outputs(self) -> dict[str, Path]:
        """Files written in addition to the rows, by their option."""
        paths = {"--summary": self.output.summary, **self.options.outputs}
        return {option: path for option, path in paths.items() if isinstance(path, Path)}

    @property
    def files_of_options(self) -> list[str]:
        """The files that the task's options tell it to read."""
        written = self.options.outputs
        paths = [path for path in vars(self.options).values() if isinstance(path, Path)]
        return [str(path) for path in paths if path not in written.values()]

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that the task needs."""
        return self.options.kind

    @property
    def model_name(self) -> str:
        """The name of the checkpoint."""
        return self.model.name(self.kind)

    @property
    def ranker(self) -> ModelSettings | None:
        """The retrieval checkpoint that ranks the texts; None if they are not ranked.

        Raises UsageError if it is not named.
        """
        return self.options.ranker(self.model)

    @property
    def checkpoints(self) -> dict[str, tuple[ModelSettings, Kind]]:
        """The checkpoints that are needed, by the options that name them."""
        needed = {"--model": (self.model, self.kind)}
        if self.ranker is not None:
            needed["--rank-model"] = self.ranker, "retrieval"
        return needed

    def fingerprint(self) -> dict[str, Any]:
        """The settings that determine the rows, as plain JSON values: a resumed run must
        have the same."""
        chosen = {
            "task": self.task,
            **_plain(self.generation),
            **_plain(self.options),  # behind: --temperature of classify is its own
            "model": absolute(self.model_name),
            "revision": self.model.revision,
            "dtype": self.model.dtype,
            "exact_pixels": self.model.exact_pixels,
            "image_column": self.input.image_column,
            "image_root": self.input.image_root,
            "shard": self.input.shard,
        }
        if self.ranker is not None:
            chosen["rank_model"] = absolute(self.ranker.name("retrieval"))
        if self.input.encoding is not None:
            chosen["encoding"] = self.input.encoding
        if self.from_features:
            chosen["from_features"] = True
        return chosen


def _plain(record: Options) -> dict[str, Any]:
    return {name: _jsonable(value) for name, value in vars(record).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):  # the content of the file counts, not its name
        return f"{value.name} (sha256 {hashlib.sha256(value.read_bytes()).hexdigest()[:12]})"
    return list(value) if isinstance(value, tuple) else value


def absolute(model: str) -> str:
    """A checkpoint's name; that of a folder as an absolute path."""
    return os.path.abspath(model) if os.path.isdir(model) else model
