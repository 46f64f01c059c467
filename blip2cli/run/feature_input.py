"""Files of features as the input of a run, for tasks that take them in place of images.

Whether an input is one is said by the file itself, in what `blip2 embed` notes in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host.terminal import show_note
from blip2cli.inputs import ColumnChoice, Source, format_of, metadata_in, open_source
from blip2cli.run.sources import FEATURES
from blip2cli.settings import Job, ModelSettings
from blip2cli.settings.metadata import settings_of

if TYPE_CHECKING:
    import pyarrow as pa

HINT = "Compute them first: blip2 embed ./photos --features itc --out feats.parquet"


def with_features(job: Job) -> Job:
    """The job; if its task takes features and its input is files of them, with the model that made them.

    Raises UsageError for features that cannot be used, or if another model is asked for.
    """
    if not job.options.takes_features:
        return job
    choice = ColumnChoice(job.input.image_column, image_required=False, encoding=job.input.encoding)
    parts = open_source(_possible_files(job.input.inputs), choice).parts
    embedded = next((part.files[0] for part in parts if _is_embedded(_settings_of(part))), None)
    if embedded is None:
        return job
    command = shlex.join(["blip2", job.task, *map(str, job.input.inputs)])
    model = job.model
    for part in open_source(job.input.inputs, choice).parts:
        _check_embedded(part, embedded)
        model = _maker(part, model, command)
    if not job.output.quiet:
        show_note(f"{job.input.inputs[0]} holds features: they are read, and no images")
    return replace(job, model=replace(model, workers=0), from_features=True)


def _possible_files(inputs: Sequence[str]) -> list[str]:
    """The inputs that may hold features: the first, and tables; of many images, the others need not be looked for."""
    tables = [name for name in inputs[1:] if (found := format_of(name)) is not None and found.contents == "table"]
    return [*inputs[:1], *tables]


def _check_embedded(part: Source, embedded: str) -> None:
    """Check that a part of the input holds features, as the file `embedded` does. Raises UsageError."""
    if not part.files or not _is_embedded(_settings_of(part)):
        name = part.files[0] if part.files else "another input"
        raise UsageError(
            f"{embedded} holds features, and {name} does not", "Give features or images: they cannot be mixed."
        )


def _maker(part: Source, asked: ModelSettings, command: str) -> ModelSettings:
    """The settings of the model that made the features of a part of the input. Raises UsageError."""
    from blip2cli.features.files import settings_of_maker

    said = _settings_of(part)
    _check(part.files[0], said, part.schema())
    return settings_of_maker(part.files[0], said, asked, command)


def _settings_of(part: Source) -> dict[str, Any]:
    """The settings of the run that wrote a part of the input; empty where they are not known."""
    return settings_of(metadata_in(part.files[0])) if part.files else {}


def _is_embedded(said: Mapping[str, Any]) -> bool:
    return said.get("task") == "embed"


def _check(name: str, said: Mapping[str, Any], schema: pa.Schema) -> None:
    """Check that features are those of images for ITC. Raises UsageError."""
    import pyarrow as pa

    if said.get("features") != "itc":
        raise UsageError(
            f"{name} holds {said.get('features')} features, which cannot be compared with classes",
            f"Give the images, or itc features. {HINT}",
        )
    kind = schema.field(FEATURES).type if FEATURES in schema.names else None
    if not isinstance(kind, pa.FixedShapeTensorType):
        raise UsageError(f"{name} has no column {FEATURES} of tensors", HINT)
    if len(kind.shape) != 2:
        raise UsageError(f"{name} holds features of texts", "Give features of images.")
