"""The settings of a run: small frozen records, validated when they are made; the command line is generated from them.

Each field carries an `Opt` with its help text, so that name, type, default and help are in one place. A record's
`validate` names the option at fault. `Job.fingerprint` is what a resumed run is compared by.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from blip2cli.errors import UsageError
from blip2cli.host.files import check_name
from blip2cli.host.storage import is_url

FormatName = Literal["parquet", "jsonl", "csv", "arrow", "sidecar", "imagefolder", "webdataset", "npy", "coco", "vqa"]

Kind = Literal["generation", "retrieval"]
"""Kinds of checkpoint: with a language model that writes, or with heads that compare images with texts."""

DEFAULT_MODEL = "Salesforce/blip2-opt-2.7b"
DEFAULT_RETRIEVAL_MODEL = "Salesforce/blip2-itm-vit-g"


def place(text: str) -> Path:
    """The place of an output: a path, or for a URL an object with the methods of a path. Raises ValueError."""
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
class Opt:
    """How a field appears on the command line: its help, extra flag names, bounds, and the variable that sets it."""

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    env: str | None = None
    parse: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class InputSettings:
    """The input."""

    panel = "Input"
    inputs: tuple[Any, ...] = ()
    image_column: Annotated[str | None, Opt("Manifest column with the image's path or bytes.", metavar="NAME")] = None
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
    allow_private: Annotated[bool, Opt("With --allow-remote: also from this machine and private networks.")] = False

    @property
    def share(self) -> tuple[int, int] | None:
        """(I, N) of --shard, I counted from 1; None for all."""
        return None if self.shard is None else (int(self.shard.partition("/")[0]), int(self.shard.partition("/")[2]))

    def validate(self) -> None:
        if self.shard is not None:
            match = re.fullmatch(r"0*(\d{1,9})/0*(\d{1,9})", self.shard, re.ASCII)
            if not match or not 1 <= int(match[1]) <= int(match[2]):
                raise UsageError(
                    f"--shard {self.shard} is not a part such as 3/16", "Parts count from 1: 1/16 to 16/16."
                )
        if self.allow_private and not self.allow_remote:
            raise UsageError("--allow-private needs --allow-remote", "Give both, or neither.")


@dataclass(frozen=True)
class OutputSettings:
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
        FormatName | None, Opt("Format of the output (see docs/outputs.md). [default: by the suffix]")
    ] = None
    shard_size: Annotated[int, Opt("Rows in each shard of a folder.", metavar="N", min=1)] = 10_000
    resume: Annotated[bool, Opt("Continue an interrupted run.")] = False
    retry_errors: Annotated[bool, Opt("With --resume: first compute the rows with errors again.")] = False
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
    quiet: Annotated[bool, Opt("Show no progress and no summary on stderr.", ("--quiet", "-q"))] = False

    def validate(self) -> None:
        if self.resume and self.overwrite:
            raise UsageError(
                "both --resume and --overwrite are given", "Use --resume to continue, or --overwrite to start again."
            )
        if self.retry_errors and not self.resume:
            raise UsageError("--retry-errors needs --resume", "It continues an existing output.")


@dataclass(frozen=True)
class ModelSettings:
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
        Literal["auto", "fp32", "fp16", "bf16", "int8", "int4"], Opt("Precision; docs/models.md says what auto picks.")
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
        return None if self.batch_size == "auto" else int(self.batch_size)

    def validate(self) -> None:
        if self.batch_size != "auto" and not re.fullmatch(r"0*[1-9]\d{0,5}", self.batch_size, re.ASCII):
            raise UsageError(f"--batch-size {self.batch_size} is neither auto nor a number from 1 to 999999", "Try 16.")
        check_device(self.device)
        if self.devices is not None and self.device != "auto":
            raise UsageError("--device cannot be used with --devices", "Give one of them.")
        if self.devices is not None:
            devices_named(self.devices)
        if self.device_map is not None:
            is_given = {"device": self.device != "auto", "devices": self.devices}
            for name in filter(is_given.get, is_given):
                raise UsageError(f"--{name} cannot be used with --device-map", "Leave one of them out.")


MOST_REPLICAS = 1024
"""Replicas on one machine."""


def check_device(device: str) -> str:
    """The name of a device, which need not exist here. Raises UsageError for other texts."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", device, re.ASCII):
        raise UsageError(f"--device {device} is not a device", "Use auto, cpu, cuda, cuda:N or mps.")
    return device


def devices_named(devices: str) -> list[str]:
    """The devices of --devices, one for each replica; ["all"] for all. Raises UsageError."""
    if devices == "all":
        return ["all"]
    if match := re.fullmatch(r"cpu:(\d{1,4})", devices):
        if not 1 <= int(match[1]) <= MOST_REPLICAS:
            raise UsageError(f"--devices {devices} asks for {int(match[1])} replicas", f"Give 1 to {MOST_REPLICAS}.")
        return ["cpu"] * int(match[1])
    named = [name.strip() for name in devices.split(",")]
    if not all(re.fullmatch(r"cuda:\d{1,4}", name) for name in named):
        raise UsageError(
            f"--devices {devices} is not a list of devices", "For example: cuda:0,cuda:1, or all, or cpu:4."
        )
    if len(set(named)) < len(named):
        raise UsageError(f"--devices {devices} names a device twice", "A GPU holds one replica.")
    return named


@dataclass(frozen=True)
class GenerationSettings:
    """How text is decoded; the names and meanings are those of transformers' GenerationConfig."""

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
class EngineSettings:
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
        if self.replicas is None:
            return None
        fewest, _, most = self.replicas.partition("-")
        return int(fewest), int(most or fewest)

    def validate(self) -> None:
        for name in ("ray_address", "replicas", "gpus_per_replica", "cpus_per_replica"):
            if self.engine == "local" and getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} needs --engine ray", "On one machine, use --devices.")
        if self.replicas is not None:
            if not re.fullmatch(r"\d{1,6}(-\d{1,6})?", self.replicas, re.ASCII):
                raise UsageError(
                    f"--replicas {self.replicas} is neither a number nor a range", "For example: 8, or 2-16."
                )
            fewest, most = self.fewest_and_most or (1, 1)
            if not 1 <= fewest <= most:
                raise UsageError(f"--replicas {self.replicas} is not a range of numbers from 1", "For example: 2-16.")


@dataclass(frozen=True)
class Job:
    """All settings of one run. `task` names the task, `options` is that task's own record."""

    task: str
    options: Any
    input: InputSettings
    output: OutputSettings
    model: ModelSettings
    generation: GenerationSettings
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        for record in (self.input, self.output, self.model, self.generation, self.engine, self.options):
            record.validate()
        if not self.input.inputs and getattr(self.options, "needs_input", True):
            several = "image files, folders, globs or manifests, or - for a list on stdin"
            raise UsageError("no input given", f"Give {'an image file' if self.task == 'chat' else several}.")
        for path in (self.output.out, *self.side_outputs.values()):
            if isinstance(path, Path):
                check_name(path)

    @property
    def side_outputs(self) -> dict[str, Path]:
        """Files written in addition to the rows, by their option."""
        of_options: dict[str, Path | None] = getattr(self.options, "outputs", {})
        paths = {"--summary": self.output.summary, **of_options}
        return {option: path for option, path in paths.items() if isinstance(path, Path)}

    @property
    def files_of_options(self) -> list[str]:
        """The files that the task's options tell it to read."""
        written: dict[str, Path | None] = getattr(self.options, "outputs", {})
        paths = [path for path in vars(self.options).values() if isinstance(path, Path)]
        return [str(path) for path in paths if path not in written.values()]

    @property
    def kind(self) -> Kind:
        """The kind of checkpoint that the task needs."""
        kind: Kind = getattr(self.options, "kind", "generation")
        return kind

    @property
    def model_name(self) -> str:
        """The name of the checkpoint."""
        return self.model.name(self.kind)

    def fingerprint(self) -> dict[str, Any]:
        """The settings that determine the rows, as plain JSON values: a resumed run must have the same."""
        chosen = {
            "task": self.task,
            **_plain(self.options),
            **_plain(self.generation),
            "model": absolute(self.model_name),
            "revision": self.model.revision,
            "dtype": self.model.dtype,
            "exact_pixels": self.model.exact_pixels,
            "image_column": self.input.image_column,
            "image_root": self.input.image_root,
            "shard": self.input.shard,
        }
        if self.input.encoding is not None:
            chosen["encoding"] = self.input.encoding
        return chosen


def _plain(record: Any) -> dict[str, Any]:
    return {f.name: _jsonable(getattr(record, f.name)) for f in dataclasses.fields(record)}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):  # the content of the file counts, not its name
        return f"{value.name} (sha256 {hashlib.sha256(value.read_bytes()).hexdigest()[:12]})"
    return list(value) if isinstance(value, tuple) else value


def absolute(model: str) -> str:
    """A checkpoint's name; that of a folder as an absolute path."""
    return os.path.abspath(model) if os.path.isdir(model) else model
