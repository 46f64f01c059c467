"""`make bench-gpu`: the tool against the loop and transformers' beams on one CUDA device, and what its texts depend on.

Random checkpoints of the true geometries are built on the device. Rates count from the arrival of the first batch, on
both sides, and are given with the start of the workers too. With --small it can be tried on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from blip2cli.commands.bench.compare import QUESTIONS
from blip2cli.commands.bench.machine import describe_machine
from blip2cli.commands.bench.material import (
    FLAN_T5_XL,
    OPT_2_7B,
    SMALLEST,
    Geometry,
    caption_lengths,
    save_photos,
    save_random_checkpoint,
)
from blip2cli.commands.bench.ours import Ours
from blip2cli.commands.bench.reference import ReferenceLoop
from blip2cli.host.terminal import hush_libraries
from blip2cli.model.decoding.requests import Request
from blip2cli.settings import GenerationSettings

BEAMS, MOST = 5, 20


@dataclass(frozen=True)
class BenchmarkSizes:
    """What is measured: images for captions, and batches, of the loop and ours."""

    device: str
    images: int
    loop_batch: int
    our_batch: int


@dataclass(frozen=True)
class RunTimes:
    """Seconds of a run, and of them those before its first batch; the share of the rest in which the device works."""

    seconds: float
    before: float
    busy: float | None = None

    def rate(self, images: int) -> float:
        """Images a second from the first batch on."""
        return images / (self.seconds - self.before)


class TimedOurs(Ours):
    """Our pipeline, with the time of its first batch."""

    arrived: float | None = None

    def batches(self, *given: Any, **options: Any) -> Iterator[Any]:
        for batch in super().batches(*given, **options):
            self.arrived = self.arrived or time.perf_counter()
            yield batch


class TimedLoop(ReferenceLoop):
    """The loop, with the time of its first batch."""

    arrived: float | None = None

    def batches(self, *given: Any) -> Any:
        for batch in super().batches(*given):
            self.arrived = self.arrived or time.perf_counter()
            yield batch


def measure(runner: TimedOurs | TimedLoop, run: Callable[[], Any]) -> RunTimes:
    """How long a run takes, after one warm-up run."""
    run()
    runner.arrived = None
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    ended = time.perf_counter()
    return RunTimes(ended - started, (runner.arrived or started) - started)


def busy(runner: TimedOurs, run: Callable[[], Any]) -> float | None:
    """The share of the time from the first batch on in which the device works; None without one."""
    if not torch.cuda.is_available():
        return None
    from torch.profiler import ProfilerActivity, profile

    runner.arrived = None
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize()
        ended = time.perf_counter()
    on_device = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    spans = sorted((event.time_range.start, event.time_range.end) for event in on_device)
    working, until = 0.0, 0.0
    for start, end in spans:
        working += max(0.0, end - max(start, until))
        until = max(until, end)
    return working / 1e6 / (ended - (runner.arrived or ended))


def compare(name: str, geometry: Geometry, dtype: str, work: Path, sizes: BenchmarkSizes) -> None:
    """Print a table of one checkpoint: captions, VQA of 1 and 8 questions, features, beams."""
    folder = save_random_checkpoint(work / name, geometry, device=sizes.device)
    whole = save_photos(work / f"photos-{sizes.images}", sizes.images, (640, 480))
    part = save_photos(work / f"photos-{sizes.images // 8}", sizes.images // 8, (640, 480))
    few = save_photos(work / f"photos-{sizes.images // 16}", sizes.images // 16, (640, 480))
    half = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    loop = measured_loop(TimedLoop(folder, half, sizes.device), (whole, part, few), sizes)
    collect()
    ours = measured_ours(TimedOurs(folder, dtype, sizes.our_batch, sizes.device), (whole, part, few), sizes)
    print(f"\n### {name}, random weights, {dtype} on {sizes.device}, images a second from the first batch on\n")
    print("| | images | loop | ours | × the loop | device busy | with the start: loop | ours |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    counts = {"captions": whole, "VQA, 1 question": whole, "VQA, 8 questions": part, "embed": whole, "5 beams": few}
    for task, folder_of in counts.items():
        n = len(list(folder_of.iterdir()))
        a, b = loop[task], ours[task]
        worked = "" if b.busy is None else f"{b.busy:.0%}"
        print(
            f"| {task} | {n} | {a.rate(n):.1f} | {b.rate(n):.1f} | {b.rate(n) / a.rate(n):.2f} | {worked} "
            f"| {n / a.seconds:.1f} | {n / b.seconds:.1f} |",
            flush=True,
        )


def measured_loop(loop: TimedLoop, folders: Sequence[Path], sizes: BenchmarkSizes) -> dict[str, RunTimes]:
    whole, part, few = (sorted(folder.glob("*.jpg")) for folder in folders)
    size = sizes.loop_batch

    def write(paths: Sequence[Path], questions: int) -> Callable[[], Any]:
        prompts: list[str | None] = [*QUESTIONS[:questions]] or [None]
        each = [path for path in paths for _ in prompts]
        return lambda: loop.write(each, list(prompts) * len(paths), caption_lengths(len(each)), size)

    return {
        "captions": measure(loop, write(whole, 0)),
        "VQA, 1 question": measure(loop, write(whole, 1)),
        "VQA, 8 questions": measure(loop, write(part, 8)),
        "embed": measure(loop, lambda: loop.embed(whole, sizes.our_batch)),
        "5 beams": measure(loop, lambda: loop.search_beams(few, BEAMS, MOST, sizes.our_batch)),
    }


def measured_ours(ours: TimedOurs, folders: Sequence[Path], sizes: BenchmarkSizes) -> dict[str, RunTimes]:
    whole, part, few = folders
    size = sizes.our_batch

    def write(folder: Path, questions: int) -> Callable[[], Any]:
        prompts: list[str | None] = [*QUESTIONS[:questions]] or [None]
        lengths = caption_lengths(len(list(folder.iterdir())) * len(prompts))
        return lambda: ours.write(folder, prompts, lengths, size)

    runs: dict[str, Callable[[], Any]] = {
        "captions": write(whole, 0),
        "VQA, 1 question": write(whole, 1),
        "VQA, 8 questions": write(part, 8),
        "embed": lambda: ours.embed(whole),
        "5 beams": lambda: ours.search_beams(few, BEAMS, MOST, size),
    }
    measured = {}
    for task, run in runs.items():
        timed = measure(ours, run)
        measured[task] = RunTimes(timed.seconds, timed.before, busy(ours, run))
    same_whatever_is_beside(ours, part, size)
    return measured


def same_whatever_is_beside(ours: Ours, folder: Path, size: int) -> None:
    """Say how many texts stay when the images come in another order, fewer at a time, or with other questions."""
    ours.model.batch_size = size
    ours.model.forget()
    images = [image for batch in ours.batches(folder) for image in ours.model.encode(batch)]
    lengths = caption_lengths(len(images))

    def texts(order: Sequence[int], questions: int = 0) -> dict[int, tuple[int, ...]]:
        requests = []
        for number in order:
            image, bounds = images[number], (lengths[number], lengths[number])
            image.uses = 1 + questions
            requests.append(Request(number, image, ours.model.prompt_ids(None), bounds))
            asked = [ours.model.prompt_ids(question) for question in QUESTIONS[:questions]]
            requests += [Request(None, image, ids, bounds) for ids in asked]
        done = ours.model.generate(iter(requests), GenerationSettings())
        return {each.key: each.token_ids for each in done if each.key is not None}

    numbers = list(range(len(images)))
    first = texts(numbers)
    others = {
        "in reverse": texts(numbers[::-1]),
        "every other one": texts(numbers[::2]),
        "with two questions an image": texts(numbers, 2),
    }
    for how, texts_now in others.items():
        equal = sum(first[number] == token_ids for number, token_ids in texts_now.items())
        print(f"{how}: {equal} of {len(texts_now)} texts as before ({len(set(first.values()))} differ)", flush=True)


def start(folder: Path, photos: Path, device: str) -> None:
    """Print how long a command over a few images takes, and what the imports alone take."""
    importing = "import torch; from transformers import Blip2ForConditionalGeneration"
    command = ["-m", "blip2cli", "caption", str(photos), "--model", str(folder), "--device", device]
    target = str(photos.parent / "started.jsonl")
    for name, words in {
        "importing the libraries": ["-c", importing],
        "one command": [*command, "-o", target, "--overwrite", "--quiet", "--max-new-tokens", "12"],
    }.items():
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True)
        print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)


def collect() -> None:
    """Free the memory that is not used any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    """Measure both published kinds of language model, or with --small try this out."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.commands.bench.gpu", description=__doc__)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--small", action="store_true", help="the smallest geometry, on the CPU if there is no GPU")
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    if not cuda and not arguments.small:
        parser.error("this PyTorch sees no CUDA device; --small tries the benchmark out on the CPU")
    device = "cuda" if cuda else "cpu"
    hush_libraries()
    print(describe_machine() + (f", {torch.cuda.get_device_name()}" if cuda else ""))
    images = 32 if arguments.small else arguments.images
    sizes = BenchmarkSizes(device, images, 16 if arguments.small else 256, 8 if arguments.small else 64)
    halves = ("fp16", "bf16") if cuda else ("fp32", "fp32")
    opt, t5 = (SMALLEST, replace(SMALLEST, flan_t5=True)) if arguments.small else (OPT_2_7B, FLAN_T5_XL)
    with tempfile.TemporaryDirectory(prefix="blip2-") as temporary:
        work = Path(temporary)
        for name, geometry, dtype in (("opt-2.7b", opt, halves[0]), ("flan-t5-xl", t5, halves[1])):
            compare(name, geometry, dtype, work, sizes)
            collect()
        start(work / "opt-2.7b", work / f"photos-{images // 16}", device)


if __name__ == "__main__":
    main()
