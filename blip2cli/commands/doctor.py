"""`blip2 doctor`: what this machine has, what is missing, and whether the bundled model runs on it.

Each probe checks one thing; an exception in a probe becomes a line, and the other probes still run.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blip2cli import __version__
from blip2cli.errors import Blip2Error, reason
from blip2cli.host.processor import ISA_LIMITS, core_quota, cores, instructions, isa_limit, processor
from blip2cli.settings import DEFAULT_MODEL, ModelSettings

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GONE = "not installed"

NOT_FOR_USERS = ("dev", "docs", "tiny-training")
"""Extras that only developers of this program need."""

FAST_X86 = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
FAST_ARM = ("asimddp", "i8mm", "bf16")
FAST = FAST_X86 + FAST_ARM
"""Instruction sets that matter here, where the processor has them."""

SECONDS = 3.0
"""How long the hub may take to answer."""

SMALL_DISK, FEW_FILES = 5 << 30, 1024
"""Less disk space, or fewer open files, than this give a note."""


State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One line: with a `problem` the tool cannot run, a `note` is worth knowing; a hint says what to do."""

    name: str
    state: State
    found: str
    hint: str = ""


Probe = Callable[[ModelSettings], Iterator[Check]]


def checks(settings: ModelSettings) -> Iterator[Check]:
    """All checks, as they are made."""
    for name, probe in PROBES.items():
        try:
            yield from probe(settings)
        except Exception as error:  # whatever is wrong with this machine, the other checks still run
            hint = error.hint if isinstance(error, Blip2Error) else ""
            state: State = "problem" if probe is self_test else "note"
            yield Check(name, state, reason(error, named=True), hint)


def versions(settings: ModelSettings) -> Iterator[Check]:
    """This program, Python, and the packages that it depends on."""
    yield Check("blip2", "ok", f"{__version__}, in {Path(__file__).parents[1]}")
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}, {sys.executable}")
    for requirement in _required().get("", []):
        version, fine = _installed(requirement)
        state: State = "ok" if fine else "problem" if version == GONE else "note"
        hint = "" if fine else f"pip install '{requirement.name}{requirement.specifier}'"
        yield Check(requirement.name, state, version, hint)


def extras(settings: ModelSettings) -> Iterator[Check]:
    """The optional packages."""
    for extra, requirements in _required().items():
        if extra and extra not in NOT_FOR_USERS:
            looked = [(requirement.name, *_installed(requirement)) for requirement in requirements]
            fine = all(is_fine for _, _, is_fine in looked)
            installed = ", ".join(f"{name} {version}" for name, version, _ in looked)
            yield Check(
                f"extra {extra}",
                "ok" if fine else "note",
                installed,
                "" if fine else f"pip install 'blip2cli[{extra}]'",
            )


def _required() -> dict[str, list[Requirement]]:
    """The requirements of this package by extra; under "" those that it always has."""
    from packaging.requirements import Requirement

    required: dict[str, list[Requirement]] = {"": []}
    for line in importlib.metadata.requires("blip2cli") or []:
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra[1] if extra else ""}):
            required.setdefault(extra[1] if extra else "", []).append(requirement)
    return required


def _installed(requirement: Requirement) -> tuple[str, bool]:
    """The installed version, and whether it satisfies the requirement."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return GONE, False
    fine = requirement.specifier.contains(version, prereleases=True)
    return version if fine else f"{version}, but {requirement.specifier} is needed", fine


def cpu(settings: ModelSettings) -> Iterator[Check]:
    """The processor, and how many of its cores there are for this process."""
    instruction_sets = instructions()
    fast = (
        ""
        if instruction_sets is None
        else f" ({', '.join(flag for flag in FAST if flag in instruction_sets) or 'no fast instructions'})"
    )
    limit = isa_limit()
    if limit:
        limited = f"{processor()}{fast}, limited to {limit} by the environment"
        yield Check("processor", "note", limited, f"Unset {' and '.join(ISA_LIMITS)} to use all of it.")
    else:
        yield Check("processor", "ok", f"{processor()}{fast}")
    usable, quota = cores(), core_quota()
    cores_text = f"{usable} of {os.cpu_count()} usable"
    if quota is not None and quota < usable:
        few = max(1, int(quota))
        hint = f"Set OMP_NUM_THREADS={few} and use --workers {few}: more threads would wait for each other."
        yield Check("cores", "note", f"{cores_text}, but the control group gives the time of {quota:g}", hint)
    else:
        yield Check("cores", "ok", cores_text)


def devices(settings: ModelSettings) -> Iterator[Check]:
    """Accelerators that PyTorch sees."""
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            gpu = f"{torch.cuda.get_device_name(number)}, {_size(free)} of {_size(total)} free"
            yield Check(f"cuda:{number}", "ok", gpu)
    elif torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple's GPU")
    else:
        hint = "If this machine has a GPU, check its driver, and that PyTorch is built for it."
        yield Check("gpu", "note", f"none that PyTorch {torch.__version__} sees; models run on the CPU", hint)


def dtype(settings: ModelSettings) -> Iterator[Check]:
    """The precision of --dtype auto, and why."""
    from blip2cli.model.checkpoint.devices import device_named
    from blip2cli.model.checkpoint.precision import automatic_dtypes, native_bf16
    from blip2cli.model.families import FAMILIES

    device = device_named(settings.device).type
    fails = [f"{family.name} fails in {refused}" for family in FAMILIES.values() for refused in family.refused]
    because = {
        "cuda": ", and ".join(["a GPU computes in 16 bits", *fails]),
        "mps": "nothing else was tried on MPS",
        "cpu": f"the processor has {'' if native_bf16() else 'no '}bf16 instructions",
    }[device]
    yield Check("dtype auto", "ok", f"{automatic_dtypes(device)} on {device}: {because}")


def int8(settings: ModelSettings) -> Iterator[Check]:
    """The kernels of --dtype int8 on the CPU, measured if they were not yet."""
    from blip2cli.model.checkpoint.kernel_choice import choose_kernels

    choice = choose_kernels()
    yield Check("int8 on cpu", "ok", f"{choice} ({choice.source})")


def memory(settings: ModelSettings) -> Iterator[Check]:
    """RAM within the control group's limit."""
    from blip2cli.host.memory import free_ram, group_limit

    limit = group_limit()
    yield Check("memory", "ok", f"{_size(free_ram())} free" + (f", limited to {_size(limit)}" if limit else ""))


def disk(settings: ModelSettings) -> Iterator[Check]:
    """Free space where outputs and checkpoints go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    paths = {"disk here": Path.cwd(), "disk of the cache": Path(HF_HUB_CACHE)}
    for name, path in paths.items():
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        hint = "The default checkpoint takes 15 GB; HF_HOME moves the cache." if free < SMALL_DISK else ""
        yield Check(name, "note" if hint else "ok", f"{_size(free)} free at {existing}", hint)


def cache(settings: ModelSettings) -> Iterator[Check]:
    """The hub's cache, and whether the model that would be used is in it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from blip2cli.model.checkpoint.hub import cached_models

    cached = cached_models()
    size = sum(entry.size for entry in cached.values())
    yield Check("cache", "ok", f"{HF_HUB_CACHE}, {len(cached)} models, {_size(size)}")
    name = settings.name(None)
    source = (
        "BLIP2_MODEL" if os.environ.get("BLIP2_MODEL") == name else "default" if name == DEFAULT_MODEL else "--model"
    )
    if name == "tiny" or os.path.isfile(os.path.join(name, "config.json")):
        yield Check("model", "ok", f"{name} ({source}), on this machine")
    elif os.path.isdir(name):
        hint = f"blip2 models {name} says what is missing."
        yield Check("model", "problem", f"{name} ({source}) contains no checkpoint (no config.json)", hint)
    elif name in cached and cached[name].whole:
        yield Check("model", "ok", f"{name} ({source}), cached, revision {cached[name].revision[:12]}")
    else:
        state = "is only partly in the cache" if name in cached else "is not in the cache"
        yield Check(
            "model", "note", f"{name} ({source}) {state}", "It is downloaded when first used; or use --model tiny."
        )


def hub(settings: ModelSettings) -> Iterator[Check]:
    """Whether the hub answers, by the client and proxies that would download from it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        yield Check("hub", "note", "not checked: HF_HUB_OFFLINE is set", "Cached checkpoints can still be used.")
        return
    answered: list[str] = []

    def ask() -> None:
        try:
            answered.append(f"HTTP {get_session().head(constants.ENDPOINT, timeout=SECONDS).status_code}")
        except Exception as error:  # the HTTP client's own, and those of sockets and proxies
            answered.append(reason(error, named=True))

    asking = threading.Thread(target=ask, daemon=True)  # a name look-up has no time limit
    started = time.perf_counter()
    asking.start()
    asking.join(SECONDS + 1)
    answer = answered[0] if answered else f"no answer in {SECONDS:g} s"
    if answer.startswith("HTTP"):
        yield Check("hub", "ok", f"{constants.ENDPOINT} answers in {time.perf_counter() - started:.1f} s ({answer})")
    else:
        hint = "Only cached checkpoints, folders and --model tiny can be used. To use a proxy, set HTTPS_PROXY."
        yield Check("hub", "note", f"{constants.ENDPOINT} is not reachable ({answer})", hint)


def limits(settings: ModelSettings) -> Iterator[Check]:
    """Files that may be open at once."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 0 <= soft < FEW_FILES
    yield Check("open files", "note" if few else "ok", f"{soft} (at most {hard})", "ulimit -n 4096" if few else "")


def self_test(settings: ModelSettings) -> Iterator[Check]:
    """Load the bundled model, and check its caption of an image drawn here."""
    from blip2cli.api import Blip2

    started = time.perf_counter()
    model: Any = Blip2("tiny", device=settings.device, workers=0)
    loaded = time.perf_counter()
    (row,) = model.caption([drawn()])
    done = time.perf_counter()
    took = f"loaded in {loaded - started:.1f} s, captioned in {done - loaded:.2f} s on {model.model.checkpoint.device}"
    if row["caption"] == EXPECTED:
        yield Check("self-test", "ok", f"tiny says {EXPECTED!r}; {took}")
    else:
        result = f"tiny says {row['caption'] or row['error']!r} and not {EXPECTED!r}; {took}"
        yield Check("self-test", "problem", result, "Try --device cpu; then report it with this whole output.")


EXPECTED = "a red circle"


def drawn() -> Any:
    """A red circle on light grey, as a Pillow image."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (128, 128), (235, 235, 235))
    ImageDraw.Draw(image).ellipse((36, 36, 92, 92), fill=(255, 0, 0))
    return image


PROBES: dict[str, Probe] = {
    "versions": versions,
    "extras": extras,
    "processor": cpu,
    "devices": devices,
    "dtype auto": dtype,
    "int8 on cpu": int8,
    "memory": memory,
    "disk": disk,
    "cache": cache,
    "hub": hub,
    "open files": limits,
    "self-test": self_test,
}
"""The probes, in this order; the name is shown if a probe fails."""


def examine_machine(settings: ModelSettings, as_json: bool) -> bool:
    """Run and show all checks; returns whether the tool can run."""
    from blip2cli.host.terminal import loading, print_records, show_check

    fine = True
    with loading("libraries", quiet=as_json), suppress(Exception):  # what is wrong with it, its probe says
        import torch  # noqa: F401
    for check in checks(settings):
        fine = fine and check.state != "problem"
        if as_json:
            print_records([vars(check)])
        else:
            show_check(check.name, check.state, check.found, check.hint)
    return fine


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
