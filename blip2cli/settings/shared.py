"""The records of options that several commands share: the input, the output, the model,
how it writes, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from blip2cli.errors import UsageError
from blip2cli.host.storage import is_url
from blip2cli.settings.devices import check_device, devices_named
from blip2cli.settings.numbers import batch_size_named, replicas_named, share_named
from blip2cli.settings.option import AllowPrivate, ManifestColumn, Opt, Options, Quiet, check_private

FormatName = Literal["parquet", "jsonl", "csv", "arrow", "sidecar", "imagefolder", "webdataset", "npy", "coco", "vqa"]


def format_name(text: str) -> str:
    """A format's name; people call sidecar files by their suffix, too."""
    return "sidecar" if text == "txt" else text


Kind = Literal["generation", "retrieval"]
"""Kinds of checkpoint: with a language model that writes, or with heads that compare
images with texts."""

DEFAULT_MODEL = "Salesforce/blip2-opt-2.7b"
DEFAULT_RETRIEVAL_MODEL = "Salesforce/blip2-itm-vit-g"


ModelName = Annotated[
    str, Opt("Hub id, local folder, or 'tiny' (bundled).", ("--model", "-m"), "MODEL", env="BLIP2_MODEL")
]
"""The one model of a command that has no other options for it."""


def place(text: str) -> Path:
    """The place of an output: a path, or for a URL an object with the methods of a path.

    Raises ValueError.
    """
    if not is_url(text):
        return Path(text)
    try:
        from upath import UPath

        url_path: Any = UPath(text.rstrip("/"))
    except ImportError:
        raise ValueError(f"{text} needs the package universal-pathlib; pip install 'blip2cli[s3]'") from None
    if not url_path.name:
        raise ValueError(f"{text} is not a folder; give a folder inside it")
    chosen: Path = url_path  # it has the methods of a path
    return chosen


DAY = 86_400.0
"""In seconds; the system cannot wait for much longer times."""


@dataclass(frozen=True)
class InputSettings(Options):
    """The input."""

    panel = "Input"
    inputs: tuple[Any, ...] = ()
    image_column: ManifestColumn = None
    image_root: Annotated[
        str | None, Opt("Folder that a manifest's image paths start from. [default: the manifest's]", metavar="FOLDER")
    ] = None
    encoding: Annotated[
        str | None, Opt("Encoding of CSV, JSON and text inputs, such as windows-1252. [default: utf-8]", metavar="NAME")
    ] = None
    limit: Annotated[int | None, Opt("Stop after this many input rows.", metavar="N", min=1)] = None
    shard: Annotated[
        str | None, Opt("Read only the I-th of N parts of the input, the same in every run.", metavar="I/N")
    ] = None
    allow_remote: Annotated[bool, Opt("Fetch the URLs that a manifest holds.")] = False
    allow_private: AllowPrivate = False

    @property
    def share(self) -> tuple[int, int] | None:
        """(I, N) of --shard, I counted from 1; None for all."""
        return None if self.shard is None else share_named(self.shard)

    def validate(self) -> None:
        if self.shard is not None:
            share_named(self.shard)
        check_private(self.allow_private, self.allow_remote)


@dataclass(frozen=True)
class OutputSettings(Options):
    """The output."""

    panel = "Output"
    out: Annotated[
        Path | None,
        Opt(
            "File to write, in the format of its suffix, or a folder, in that of --format. [default: stdout]",
            ("--out", "-o"),
            "PATH",
            parse=place,
        ),
    ] = None
    format: Annotated[
        FormatName | None,
        Opt(
            "Format of the output (see docs/outputs.md); txt means sidecar. [default: by the suffix]",
            parse=format_name,
        ),
    ] = None
    shard_size: Annotated[int, Opt("Rows in each shard of a folder.", metavar="N", min=1)] = 10_000
    resume: Annotated[bool, Opt("Continue an interrupted run.")] = False
    update: Annotated[
        bool, Opt("Add the rows of a grown input that the output does not have yet, wherever they stand in the input.")
    ] = False
    retry_errors: Annotated[bool, Opt("Compute the rows with errors again, then continue as --resume does.")] = False
    overwrite: Annotated[bool, Opt("Replace the output if it exists.")] = False
    commit_every: Annotated[
        float, Opt("Seconds between commits to the output.", metavar="SECONDS", min=0.0, max=DAY)
    ] = 5.0
    existing: Annotated[
        Literal["skip", "overwrite", "append"] | None,
        Opt("If a sidecar file exists: skip its image, overwrite the file, or append to it. [default: skip]"),
    ] = None
    dry_run: Annotated[bool, Opt("Show what would be read and written, and by which model, without doing it.")] = False
    summary: Annotated[Path | None, Opt("Write the closing summary to this file as JSON.", metavar="FILE")] = None
    quiet: Quiet = False

    @property
    def continues(self) -> bool:
        """Whether rows are added to an output that is there."""
        return self.resume or self.update or self.retry_errors

    def validate(self) -> None:
        if self.continues and self.overwrite:
            given = "--update" if self.update else "--resume" if self.resume else "--retry-errors"
            raise UsageError(
                f"both {given} and --overwrite are given", f"Use {given} to continue, or --overwrite to start again."
            )


@dataclass(frozen=True)
class ModelSettings(Options):
    """Which model, and how it runs."""

    panel = "Model"
    model: Annotated[
        str | None,
        Opt(
            f"Hub id, local folder, or 'tiny' (bundled). [default: {DEFAULT_MODEL}; "
            f"for retrieval {DEFAULT_RETRIEVAL_MODEL}]",
            ("--model", "-m"),
            "MODEL",
            env="BLIP2_MODEL",
        ),
    ] = None
    revision: Annotated[str | None, Opt("Branch, tag or commit on the hub.", metavar="REV")] = None
    dtype: Annotated[
        Literal["auto", "fp32", "fp16", "bf16", "int8", "int4"],
        Opt("Precision; docs/models.md says what auto picks. On CUDA, int8 and int4 save memory, not time."),
    ] = "auto"
    device: Annotated[str, Opt("auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")] = "auto"
    devices: Annotated[
        str | None,
        Opt(
            "Replicas of the model, one process each: cuda:0,cuda:1, all (every CUDA device), or cpu:N.", metavar="LIST"
        ),
    ] = None
    device_map: Annotated[
        Literal["auto"] | None, Opt("auto: spread one model over all CUDA devices, if it does not fit on one.")
    ] = None
    batch_size: Annotated[str, Opt("Images encoded together: a number, or auto.", metavar="auto|N")] = "auto"
    workers: Annotated[
        int | None,
        Opt("Processes that read and decode images; 0 for none. [default: the cores]", metavar="N", min=0, max=1024),
    ] = None
    image_timeout: Annotated[
        float, Opt("Give up an image if reading and decoding it takes longer.", metavar="SECONDS", min=0.1, max=DAY)
    ] = 60.0
    exact_pixels: Annotated[
        bool, Opt("Decode large JPEGs at full scale: pixels equal to Pillow's, but several times slower.")
    ] = False

    def name(self, kind: Kind | None) -> str:
        """The checkpoint's name: the one given, or that kind's default."""
        return self.model or (DEFAULT_RETRIEVAL_MODEL if kind == "retrieval" else DEFAULT_MODEL)

    @property
    def images_at_once(self) -> int | None:
        """The batch size; None for auto."""
        return batch_size_named(self.batch_size)

    def validate(self) -> None:
        batch_size_named(self.batch_size)
        check_device(self.device)
        if self.devices is not None and self.device != "auto":
            raise UsageError("--device cannot be used with --devices", "Give one of them.")
        if self.devices is not None:
            devices_named(self.devices)
        if self.device_map is not None:
            is_given = {"device": self.device != "auto", "devices": self.devices}
            for name in filter(is_given.get, is_given):
                raise UsageError(f"--{name} cannot be used with --device-map", "Leave one of them out.")


@dataclass(frozen=True)
class GenerationSettings(Options):
    """How text is decoded; the names and meanings are those of transformers'
    GenerationConfig."""

    panel = "Generation"
    max_new_tokens: Annotated[
        int | None,
        Opt("Maximum number of tokens to write. [default: 30 for captions, 10 for answers]", metavar="N", min=1),
    ] = None
    min_new_tokens: Annotated[int, Opt("Minimum number of tokens to write.", metavar="N", min=0)] = 0
    num_beams: Annotated[int, Opt("Number of beams; 1 is greedy.", metavar="N", min=1, max=1000)] = 1
    temperature: Annotated[
        float, Opt("Sample at this temperature; 0 does not sample.", metavar="T", min=0.0, max=100.0)
    ] = 0.0
    top_p: Annotated[
        float | None,
        Opt("Sample from the smallest set of tokens with this probability.", metavar="P", min=0.0, max=1.0),
    ] = None
    repetition_penalty: Annotated[float, Opt("Above 1 discourages repetition.", metavar="X", min=0.01, max=100.0)] = 1.0
    length_penalty: Annotated[
        float, Opt("Beam search: above 0 favours longer text.", metavar="X", min=-50.0, max=50.0)
    ] = 1.0
    scores: Annotated[bool, Opt("Add each text's average log-probability per token, and its probability.")] = False
    seed: Annotated[int, Opt("Seed of sampling; the batch size does not change the texts.", metavar="N", min=0)] = 0

    @property
    def samples(self) -> bool:
        """Whether tokens are sampled."""
        return self.temperature > 0 or self.top_p is not None

    def validate(self) -> None:
        if self.samples and self.num_beams > 1:
            raise UsageError(
                "--num-beams cannot be used with --temperature or --top-p", "Choose beam search or sampling, not both."
            )
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise UsageError(
                f"--min-new-tokens {self.min_new_tokens} is above --max-new-tokens {self.max_new_tokens}",
                "Lower the one or raise the other.",
            )


@dataclass(frozen=True)
class EngineSettings(Options):
    """Where it runs."""

    panel = "Cluster"
    engine: Annotated[Literal["local", "ray"], Opt("This machine, or a Ray cluster, which needs the extra `ray`.")] = (
        "local"
    )
    ray_address: Annotated[
        str | None,
        Opt(
            "Cluster to join; local starts one. [default: RAY_ADDRESS, else one on this machine, else local]",
            metavar="ADDRESS",
        ),
    ] = None
    replicas: Annotated[
        str | None,
        Opt("Number of replicas, or MIN-MAX for a cluster that grows. [default: all]", metavar="N|N-M"),
    ] = None
    gpus_per_replica: Annotated[
        float | None,
        Opt(
            "GPUs for each replica; may be a fraction. [default: 1 if there are any]", metavar="F", min=0.0, max=1024.0
        ),
    ] = None
    cpus_per_replica: Annotated[
        int | None,
        Opt("CPU cores for each replica, most of them to decode images. [default: 4]", metavar="N", min=1, max=4096),
    ] = None

    @property
    def fewest_and_most(self) -> tuple[int, int] | None:
        """The numbers of --replicas; None for as many as fit."""
        return None if self.replicas is None else replicas_named(self.replicas)

    def validate(self) -> None:
        ray_only = {
            "--ray-address": self.ray_address,
            "--replicas": self.replicas,
            "--gpus-per-replica": self.gpus_per_replica,
            "--cpus-per-replica": self.cpus_per_replica,
        }
        for option, value in ray_only.items():
            if self.engine == "local" and value is not None:
                raise UsageError(f"{option} needs --engine ray", "On one machine, use --devices.")
        if self.replicas is not None:
            replicas_named(self.replicas)
