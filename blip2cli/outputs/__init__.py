"""Where rows go: the registry of formats, a file each, and `open_output`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError
from blip2cli.host.imports import load_object
from blip2cli.outputs.formats import Format, Output
from blip2cli.outputs.layout import Layout
from blip2cli.outputs.resuming import header_of, open_journal
from blip2cli.outputs.target import Target

if TYPE_CHECKING:
    from blip2cli.settings import OutputSettings

FORMATS = {
    "parquet": Format("blip2cli.outputs.parquet:ParquetOutput", suffixes=(".parquet",)),
    "jsonl": Format(
        "blip2cli.outputs.jsonl:JsonlOutput",
        suffixes=(".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst"),
    ),
    "csv": Format(
        "blip2cli.outputs.csv:CsvOutput",
        suffixes=(".csv", ".tsv", ".csv.gz", ".csv.zst"),
    ),
    "arrow": Format("blip2cli.outputs.feather:ArrowOutput", suffixes=(".arrow", ".feather")),
    "sidecar": Format(
        opener="blip2cli.outputs.sidecar:open_sidecar",
        tasks=("caption",),
        texts_alone=True,
        destination="beside",
        errors_file="{}.errors.jsonl",
        into_images=True,
        one_caption=True,
        no_retry="Run again: images without a text file are captioned.",
        adds_to_existing=True,
    ),
    "imagefolder": Format(
        "blip2cli.outputs.imagefolder:ImageFolderOutput",
        tasks=("caption",),
        destination="index",
        index="metadata.jsonl",
        errors_file="metadata.errors.jsonl",
        into_images=True,
        copies_images=True,
        one_caption=True,
        no_retry="Caption the images of metadata.errors.jsonl again.",
        no_update="Its rows have other names than those of the input; write JSONL, and convert that.",
    ),
    "webdataset": Format(
        "blip2cli.outputs.webdataset:WebDatasetOutput",
        tasks=("caption",),
        destination="shards",
        files=("{:05}.tar", "{:05}.parquet"),
        copies_images=True,
        one_caption=True,
    ),
    "npy": Format(
        "blip2cli.outputs.npy:NpyOutput",
        tasks=("embed",),
        destination="shards",
        files=("img_emb/img_emb_{:05}.npy", "metadata/metadata_{:05}.parquet"),
    ),
    "coco": Format(
        "blip2cli.outputs.results:CocoResults",
        tasks=("caption",),
        texts_alone=True,
        one_caption=True,
        no_update="Its rows have no names; use --overwrite, or keep the captions as JSONL.",
    ),
    "vqa": Format(
        "blip2cli.outputs.results:VqaResults",
        tasks=("vqa",),
        texts_alone=True,
        needs_column=("question_id", "Give the questions as JSON or in a manifest, with their ids."),
        no_update="Its rows have no names; use --overwrite, or keep the answers as JSONL.",
    ),
}
"""Name, as --format has it, → format."""


def open_output(target: Target, settings: OutputSettings, layout: Layout, fingerprint: Mapping[str, Any]) -> Output:
    """The output of a target, ready to take rows, what an earlier run left torn repaired.

    Raises UsageError, with nothing changed, where it cannot be resumed.

    Args:
        target: where the rows go.
        settings: whether it is resumed, and how large shards are.
        layout: the columns.
        fingerprint: the run's settings, which a resumed run must share.
    """
    known = target.format
    if known.needs_column and known.needs_column[0] not in layout.carried:
        column, hint = known.needs_column
        raise UsageError(f"--format {target.name} needs a column {column}", hint)
    header = header_of(target, settings, layout, fingerprint)
    if known.opener:
        output: Output = load_object(known.opener)(target, settings, layout, header)
        return output
    journal = open_journal(target, settings, header)
    if not target.shards:
        return known.make(target.path, layout, journal)
    if isinstance(target.path, Path):
        from blip2cli.outputs.shards import ShardedOutput

        return ShardedOutput(target.path, layout, journal, known, settings.shard_size)
    from blip2cli.outputs.remote import RemoteShards

    return RemoteShards(target.path, layout, journal, known, settings.shard_size)
