"""`blip2 models`: known checkpoints, which of them are on this machine, and which fit it. Loads no weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip2cli.errors import CheckpointError, UsageError
from blip2cli.host.memory import free_ram
from blip2cli.model.checkpoint.anatomy import Anatomy, examine
from blip2cli.model.checkpoint.catalogue import PUBLISHED, PublishedCheckpoint
from blip2cli.model.checkpoint.hub import CachedModel, cached_models, check_model_name
from blip2cli.model.checkpoint.precision import automatic_dtypes, native_bf16, resolve_dtype
from blip2cli.settings import ModelSettings
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")

TINY = (MODEL_DIR, RETRIEVAL_DIR)
"""The two kinds of the bundled model."""

FEW = 5
"""Names shown of files and weights that are not read."""

BESIDE = 1 << 30
"""Bytes that must be free in addition to the weights: for PyTorch, an image, and the keys and values of a text."""

GPU_SIGNS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Where Linux shows that there may be a GPU; only then is PyTorch, which takes seconds to load, asked for it."""


@dataclass(frozen=True)
class Machine:
    """Where a model would run: the device that `auto` picks, and the bytes free on it."""

    device: str
    free: int


@dataclass(frozen=True)
class Listed:
    """A checkpoint in the list. Memory is an estimate, in bytes by precision.

    `cached` says whether it is in the hub's cache, completely or in part; None if it is not.
    """

    model: str
    language_model: str | None
    image_side: int
    parameters: int
    memory: dict[str, int]
    dtype: str
    fits: tuple[str, ...]
    cached: str | None = None
    revision: str | None = None
    folder: str | None = None
    size: int | None = None

    def record(self) -> dict[str, Any]:
        """As a JSON line."""
        return {**vars(self), "fits": list(self.fits)}


def this_machine() -> Machine:
    """The device of --device auto, and its free memory."""
    if sys.platform != "darwin" and not any(os.path.exists(sign) for sign in GPU_SIGNS):
        return Machine("cpu", free_ram())
    from blip2cli.model.checkpoint.devices import device_named
    from blip2cli.model.memory import free_bytes

    device = device_named("auto")
    return Machine(device.type, free_bytes(device))


def listed(machine: Machine) -> Iterator[Listed]:
    """The bundled model, those published, and other BLIP-2 checkpoints that the cache holds."""
    cached = cached_models()
    for folder in TINY:
        yield _listed("tiny", examine(folder), machine)
    for known in PUBLISHED:
        yield _listed(known.name, known, machine, cached.pop(known.name, None))
    for name, cached_entry in sorted(cached.items()):
        try:
            anatomy = examine(cached_entry.folder)
        except CheckpointError:  # another kind of model
            continue
        yield _listed(name, anatomy, machine, cached_entry)


def _listed(
    name: str, facts: PublishedCheckpoint | Anatomy, machine: Machine, cached: CachedModel | None = None
) -> Listed:
    memory = dict(_memory(facts, machine))
    return Listed(
        name,
        facts.language_model,
        facts.image_side,
        facts.weights.total,
        memory,
        resolve_dtype("auto", machine.device, facts.family),
        tuple(precision for precision, size in memory.items() if size + BESIDE <= machine.free),
        *(() if cached is None else _place(cached)),
    )


def _memory(facts: PublishedCheckpoint | Anatomy, machine: Machine) -> Iterator[tuple[str, int]]:
    """Bytes of the loaded weights in each precision that runs there."""
    other_bytes = 2 if machine.device != "cpu" or native_bf16() else 4
    for precision in PRECISIONS:
        try:
            resolve_dtype(precision, machine.device, facts.family)
        except UsageError:
            continue
        yield precision, facts.weights.bytes(precision, other_bytes)


def _place(cached: CachedModel) -> tuple[str, str, str, int]:
    return ("whole" if cached.whole else "in part", cached.revision, str(cached.folder), cached.size)


@dataclass(frozen=True)
class CheckpointDetail:
    """One checkpoint that is on this machine, in detail."""

    model: str
    folder: Path
    anatomy: Anatomy
    entry: Listed
    problem: str | None
    unused: tuple[str, ...]

    @property
    def runs(self) -> bool:
        return self.problem is None

    def record(self) -> dict[str, Any]:
        """As a JSON line: the entry of the list, and the content of the folder."""
        anatomy = self.anatomy
        more: dict[str, Any] = {name: list(getattr(anatomy, name)) for name in ("dtypes", "missing", "old")}
        more |= {"unused": list(self.unused), "problem": self.problem}
        counted = {"query_tokens": anatomy.query_tokens, "parts": anatomy.parameters, "tokenizer": anatomy.tokenizer}
        return {**self.entry.record(), "folder": str(self.folder), **counted, **more}


def checkpoint_details(model: str, machine: Machine) -> Iterator[CheckpointDetail]:
    """A local folder, both kinds of `tiny`, or the cached files of a hub id. Raises CheckpointError."""
    for folder, cached in _folders(model):
        anatomy = examine(folder)
        problem, unused = _tried(folder)
        yield CheckpointDetail(
            model, folder, anatomy, _listed(model, anatomy, machine, cached), problem, (*anatomy.unused, *unused)
        )


def _tried(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    """Why a checkpoint would not run, if so, and its unused weights: checked like in a run, before loading."""
    from blip2cli.host.terminal import hush_libraries, loading

    with loading("libraries"):
        from blip2cli.model.checkpoint.find import find_checkpoint

        hush_libraries()
    try:
        checkpoint = find_checkpoint(ModelSettings(model=str(folder), device="cpu"), fetch=False)
        checkpoint.load_tokenizer()
    except CheckpointError as error:
        return f"{error.message.removesuffix('.')}. {error.hint}", ()
    return None, checkpoint.unused


def _folders(model: str) -> list[tuple[Path, CachedModel | None]]:
    if model == "tiny":
        return [(folder, None) for folder in TINY]
    if os.path.isdir(model):
        return [(Path(model), None)]
    check_model_name(model)
    cached = cached_models().get(model)
    if cached is None:
        raise CheckpointError(
            f"{model} is neither a folder nor in the hub's cache", "Give a folder, or download the checkpoint first."
        )
    return [(cached.folder, cached)]


def show(models: Sequence[str], as_json: bool) -> bool:
    """List all checkpoints, or describe the given ones; returns whether all of those can run."""
    from blip2cli.host.terminal import print_records

    machine = this_machine()
    if models:
        details = [detail for model in models for detail in checkpoint_details(model, machine)]
        if as_json:
            print_records(detail.record() for detail in details)
        else:
            for at, detail in enumerate(details):
                print(end="\n" if at else "")
                _show_detail(detail, machine)
        return all(detail.runs for detail in details)
    entries = listed(machine)
    if as_json:
        print_records(entry.record() for entry in entries)
    else:
        _show_list(list(entries), machine)
    return True


def _show_list(entries: Sequence[Listed], machine: Machine) -> None:
    from blip2cli.host.terminal import show_table

    precisions = [name for name in PRECISIONS if any(name in entry.memory for entry in entries)]
    show_table(
        ["model", "language model", "side", "weights", *precisions, "cached"],
        [
            [
                _name(entry),
                (entry.language_model or "none").partition(",")[0],
                str(entry.image_side),
                counted(entry.parameters),
                *(_cell(entry, name) for name in precisions),
                _cached(entry),
            ]
            for entry in entries
        ],
        spare=["side", "weights", "language model"],
    )
    print(
        f"\nMemory of the loaded weights in GB, estimated from their number.\n"
        f"* fits the {gigabytes(machine.free)} GB free on {machine.device}, with 1 GB to spare. "
        f"--dtype auto picks {automatic_dtypes(machine.device)} here."
    )


def _name(entry: Listed) -> str:
    return "tiny (match, search)" if entry.model == "tiny" and entry.language_model is None else entry.model


def _cell(entry: Listed, precision: str) -> str:
    if precision not in entry.memory:
        return ""
    return gigabytes(entry.memory[precision]) + ("*" if precision in entry.fits else " ")


def _cached(entry: Listed) -> str:
    if entry.model == "tiny":
        return "bundled"
    if entry.cached is None or entry.size is None:
        return "no"
    return f"{entry.cached}, {gigabytes(entry.size)} GB"


def _show_detail(detail: CheckpointDetail, machine: Machine) -> None:
    from blip2cli.host.terminal import show_plan

    anatomy, entry = detail.anatomy, detail.entry
    parts = ", ".join(f"{part} {counted(number)}" for part, number in anatomy.parameters.items())
    memory = ", ".join(f"{name} {gigabytes(size)}" for name, size in entry.memory.items())
    fits = ", ".join(entry.fits) or "none"
    lines = [
        ("model", detail.model),
        ("folder", str(detail.folder)),
        ("language model", anatomy.language_model or "none: retrieval heads"),
        ("images", f"{anatomy.image_side} x {anatomy.image_side} pixels, {anatomy.query_tokens} query tokens"),
        ("weights", f"{counted(anatomy.weights.total)} ({parts}), stored as {', '.join(anatomy.dtypes) or 'nothing'}"),
        ("memory", f"{memory} GB, estimated"),
        ("here", f"{entry.dtype} by --dtype auto on {machine.device}; {gigabytes(machine.free)} GB free; fit: {fits}"),
        ("tokenizer", "there" if anatomy.tokenizer else "missing"),
        *([("revision", entry.revision)] if entry.revision else []),
        *([("old", f"has no {', '.join(anatomy.old)}, which blip2 does not need")] if anatomy.old else []),
        *([("not read", _few(detail.unused))] if detail.unused else []),
        ("runs", f"no: {detail.problem}" if detail.problem else "yes"),
    ]
    show_plan(lines)


def _few(names: Sequence[str]) -> str:
    """Names of files or weights; of many only the first."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def counted(number: int) -> str:
    """A number of weights in short form: 3.7 B, 2.4 M."""
    return f"{number / 1e9:.1f} B" if number >= 1e8 else f"{number / 1e6:.1f} M"


def gigabytes(size: int) -> str:
    """Bytes in GB (10^9) with one digit, or three if it is little."""
    return f"{size / 1e9:.1f}" if size >= 1e8 else f"{size / 1e9:.3f}"
