"""`make bench`: the tool against the reference loop, interleaved in one run, as ratios.

Every pair runs alternately, A B A B, so that a change in the machine's speed affects both; the result is the ratio
of the medians. Both write the same texts and run at the batch size at which each was fastest on this machine (tried
once, before the rounds).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blip2cli.commands.bench.machine import describe_machine, matrix_peak, memory_bandwidth
from blip2cli.commands.bench.material import MIDDLE, caption_lengths, save_photos, save_random_checkpoint
from blip2cli.host.terminal import hush_libraries

QUESTIONS = [
    f"Question: is there a {thing} here? Answer:"
    for thing in ("dog", "red circle", "woman on a horse", "car", "cat", "large blue thing", "tree", "man")
]

Run = Callable[[], Any]


def rounds(runs: dict[str, Run], count: int) -> dict[str, float]:
    """Run all alternately, `count` times; returns the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def fastest(make: Callable[[int], Run], batch_sizes: tuple[int, ...]) -> Run:
    """The run at the batch size at which it is fastest; each size is tried once, the first after a warm-up."""
    timed = []
    make(batch_sizes[0])()
    for batch_size in batch_sizes:
        run = make(batch_size)
        started = time.perf_counter()
        run()
        timed.append((time.perf_counter() - started, batch_size, run))
    return min(timed, key=lambda item: item[:2])[2]


def table(title: str, medians: dict[str, float], baseline: str, items: int, unit: str) -> None:
    """Print seconds, items a second, and how many times the baseline's speed."""
    print(f"\n### {title}\n\n| | seconds | {unit} a second | × {baseline} |\n|---|---:|---:|---:|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {items / seconds:.2f} | {medians[baseline] / seconds:.2f} |", flush=True)


def texts(folder: Path, photos: Path, images: int, questions: int, count: int, with_fp32: bool) -> None:
    """Captions (no questions) or answers to each image's questions, ours against the loop:
    in bf16 where the processor has it, else in fp32."""
    import torch

    from blip2cli.commands.bench.ours import Ours
    from blip2cli.commands.bench.reference import ReferenceLoop
    from blip2cli.model.checkpoint.precision import native_bf16
    from blip2cli.model.checkpoint.record import DTYPES

    prompts: list[str | None] = list(QUESTIONS[:questions]) or [None]
    paths = [path for path in sorted(photos.glob("*.jpg"))[:images] for _ in prompts]
    asked = prompts * images
    lengths = caption_lengths(len(paths))
    photo_folder = save_photos(photos.parent / f"photos-{images}", images, (640, 480))

    def loop(dtype: torch.dtype) -> Run:
        reference = ReferenceLoop(folder, dtype)
        return fastest(lambda size: lambda: reference.write(paths, asked, lengths, size), (16, 32))

    layers: dict[str, str] = {}

    def ours(dtype: str) -> Run:
        def make(size: int) -> Run:
            return lambda: tool.write(photo_folder, prompts, lengths, size)

        tool = Ours(folder, dtype, 8)
        layers[dtype] = tool.layers
        return fastest(make, (8, 16))

    wide = "bf16" if native_bf16() else "fp32"
    runs = {f"loop {wide}": loop(DTYPES[wide]), f"ours {wide}": ours(wide), "ours int8": ours("int8")}
    if with_fp32 and wide == "bf16":
        runs = {"loop fp32": loop(torch.float32), **runs}
    title = f"VQA, {questions} questions an image" if questions else "Captions"
    table(f"{title}: {images} images, middle geometry", rounds(runs, count), f"loop {wide}", images, "images")
    for dtype, kinds in layers.items():
        print(f"\nLinear layers in {dtype}: {kinds}.")


def beams(folder: Path, images: int, count: int) -> None:
    """Captions with 5 beams of images that are encoded, against transformers' `generate`, in bf16."""
    import torch

    from blip2cli.commands.bench.ours import Ours
    from blip2cli.commands.bench.reference import ReferenceLoop

    reference, ours = ReferenceLoop(folder, torch.bfloat16), Ours(folder, "bf16", 8)
    embeds = torch.randn(images, 32, MIDDLE.text_width, generator=torch.Generator().manual_seed(0)).bfloat16()

    def loop(most: int) -> Run:
        return fastest(lambda size: lambda: reference.decode_beams(embeds, 5, most, size), (8, 16))

    def own(most: int) -> Run:
        return fastest(lambda size: lambda: ours.decode_beams(list(embeds), 5, most, size), (8, 16))

    for most in (10, 20):
        runs = {"generate": loop(most), "ours": own(most)}
        table(f"5 beams, {most} tokens, encoding apart", rounds(runs, count), "generate", images, "images")


def embeddings(folder: Path, photos: Path, images: int, count: int) -> None:
    """Q-Former features through the pipeline, against only the forward pass on pixels in memory, in bf16."""
    from blip2cli.commands.bench.ours import Ours

    photo_folder = save_photos(photos.parent / f"photos-{images}", images, (640, 480))
    ours = Ours(folder, "bf16", 8)
    raw = [ours.model.encoder.normalize(batch.pixels) for batch in ours.batches(photo_folder, 0)]
    runs: dict[str, Run] = {
        "bare forward": lambda: [ours.bare_qformer(pixel_values) for pixel_values in raw],
        "pipeline": lambda: ours.embed(photo_folder),
    }
    table(f"Embeddings: {images} images, bf16", rounds(runs, count), "bare forward", images, "images")


def large_jpegs(folder: Path, work: Path, images: int, count: int) -> None:
    """The loader alone on 12-megapixel JPEGs, against transformers' processor in DataLoader workers."""
    import torch

    from blip2cli.commands.bench.ours import Ours
    from blip2cli.commands.bench.reference import ReferenceLoop

    large = save_photos(work / "large", images, (4000, 3000))
    paths = sorted(large.glob("*.jpg"))
    reference, ours = ReferenceLoop(folder, torch.bfloat16), Ours(folder, "bf16", 8)
    runs: dict[str, Run] = {
        "processor": lambda: list(reference.batches(paths, [None] * images, 4)),
        "ours": lambda: list(ours.batches(large)),
        "ours, --exact-pixels": lambda: list(ours.batches(large, exact=True)),
    }
    table(f"Loading {images} JPEGs of 12 megapixels", rounds(runs, count), "processor", images, "images")


def overhead(work: Path, images: int, count: int) -> None:
    """`blip2 caption` with the bundled model as a whole process; and its start and end, for one image."""
    small = save_photos(work / "small", images, (64, 64))
    one_photo = next(small.glob("*.jpg"))
    importing = "import torch; from transformers import Blip2ForConditionalGeneration"

    def caption(target: Path) -> Run:
        command = [sys.executable, "-m", "blip2cli", "caption", str(target), "--model", "tiny", "--quiet"]
        return lambda: subprocess.run([*command, "-o", str(work / "tiny.jsonl"), "--overwrite"], check=True)

    runs: dict[str, Run] = {
        "importing the libraries": lambda: subprocess.run([sys.executable, "-c", importing], check=True),
        "one image": caption(one_photo),
        f"{images} images": caption(small),
    }
    medians = rounds(runs, count)
    table("The bundled model, whole processes", medians, "importing the libraries", images, "rows")
    rate = (images - 1) / (medians[f"{images} images"] - medians["one image"])
    print(f"\nStart-up apart: {rate:.0f} images a second. One image: {medians['one image']:.2f} s,")
    print(f"{medians['one image'] / medians['importing the libraries']:.2f} × importing the libraries alone.")


def roofline(folder: Path) -> None:
    """How much of this machine's measured peaks the encoder and a decoding step use."""
    import torch

    from blip2cli.commands.bench.ours import Ours
    from blip2cli.model.decoding.opt import OptDecoder
    from blip2cli.model.decoding.requests import EncodedImage, Request
    from blip2cli.model.graphs import Eager

    peak, bandwidth = matrix_peak(torch.bfloat16), memory_bandwidth()
    ours = Ours(folder, "bf16", 8)
    language_model = ours.model.model.language_model
    pixels = torch.randint(0, 256, (8, 224, 224, 3), dtype=torch.uint8)
    decoder, slots = OptDecoder(language_model, Eager()), list(range(32))
    decoder.reset(len(slots))
    with torch.inference_mode():
        embeds = ours.model.encoder.query_embeds(pixels)
        decoder.admit([Request(n, EncodedImage(embeds[n % 8]), (2,), (0, 20)) for n in slots], slots)
        decoder.cache.reserve(64)
        encode = rounds({"encode": lambda: ours.model.encoder.vision(pixels)}, 3)["encode"]
        step = rounds({"step": lambda: decoder.step(torch.full((32,), 5))}, 8)["step"]
    vision_flops = (
        8
        * 2
        * 257
        * MIDDLE.vision_layers
        * (4 * MIDDLE.vision_width**2 + 2 * MIDDLE.vision_width * MIDDLE.vision_mlp + 2 * 257 * MIDDLE.vision_width)
    )
    step_bytes = 2 * (12 * MIDDLE.text_layers * MIDDLE.text_width**2 + 50272 * MIDDLE.text_width)
    print("\n### Against this machine's peaks\n\n| | measured | peak | used |\n|---|---:|---:|---:|")
    for measurement, used, best in (
        ("vision, bf16, GFLOP/s", vision_flops / encode / 1e9, peak),
        ("decoding step of 32, GB/s", step_bytes / step / 1e9, bandwidth),
    ):
        print(f"| {measurement} | {used:.1f} | {best:.1f} | {used / best:.0%} |")


def main() -> None:
    """Run the parts that are named; all by default."""
    parts = ("captions", "vqa1", "vqa8", "beams", "embed", "large", "tiny", "roofline")
    parser = argparse.ArgumentParser(prog="python -m blip2cli.commands.bench.compare", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    chosen = arguments.parts or parts
    hush_libraries()
    print(f"{describe_machine()}\n\nMedians of {arguments.rounds} interleaved rounds.")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = save_random_checkpoint(work / "middle", MIDDLE)
        photos = save_photos(work / "photos", arguments.images, (640, 480))
        if "captions" in chosen:
            texts(folder, photos, arguments.images, 0, arguments.rounds, with_fp32=True)
        if "vqa1" in chosen:
            texts(folder, photos, arguments.images, 1, arguments.rounds, with_fp32=False)
        if "vqa8" in chosen:
            texts(folder, photos, max(arguments.images // 4, 1), 8, arguments.rounds, with_fp32=False)
        if "beams" in chosen:
            beams(folder, arguments.images, arguments.rounds)
        if "embed" in chosen:
            embeddings(folder, photos, 3 * arguments.images, arguments.rounds)
        if "large" in chosen:
            large_jpegs(folder, work, 3 * arguments.images, arguments.rounds)
        if "tiny" in chosen:
            overhead(work, 4000, arguments.rounds)
        if "roofline" in chosen:
            roofline(folder)


if __name__ == "__main__":
    main()
