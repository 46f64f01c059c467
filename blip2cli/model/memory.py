"""How many images are encoded together: from the shapes of the checkpoint and the memory that is free."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LARGEST = {"cuda": 64}
"""Images encoded together at most, by device. Beyond it a GPU is busy."""

LARGEST_ELSEWHERE = 8
"""On a CPU more images at once are no faster."""

SMALL, LARGEST_SMALL = 50_000_000, 64
"""Below so many parameters a model is fed larger batches: what it waits for is Python."""

SLOTS_PER_IMAGE = 8
"""Texts decoded together for every image of an encoding batch: a decoding step costs little more for more texts."""

COLUMNS = 64
"""Tokens of keys and values that a text is expected to need: the image's, a prompt's and the text's own."""

CONTROL_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "anon"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "rss"),
)
"""Where the kernel says the limit of a control group (versions 2 and 1), and the memory in use that is not a file's."""

UNLIMITED = 1 << 60
"""Version 1 of control groups writes no limit as a number beyond this one."""

SHARE = 0.5
"""Of the free memory that an estimate may fill; the rest is for what it does not know of."""


def automatic_batch_size(model: Any, devices: Sequence[torch.device]) -> int:
    """Images to encode together: the largest power of two that is of use and, by the estimate, fits on each device."""
    small = sum(weight.numel() for weight in model.parameters()) < SMALL
    largest = LARGEST_SMALL if small else LARGEST.get(devices[0].type, LARGEST_ELSEWHERE)
    recorded = len(devices) == 1 and devices[0].type == "cuda"
    each = bytes_per_image(model.config, model.dtype.itemsize, hasattr(model, "language_model"), recorded)
    fits = int(SHARE * min(map(free_bytes, devices)) / each)
    return min(largest, 1 << max(fits, 1).bit_length() - 1)


def bytes_per_image(config: Any, itemsize: int, writes: bool = True, recorded: bool = False) -> int:
    """An estimate of what an image of the batch takes at the widest point, weights apart.

    Vision: in a layer, states of every patch (input, normed, queries, keys, values, output) and the MLP's, before and
    behind its activation. Language, where the model writes: keys and values of SLOTS_PER_IMAGE texts, twice, as the
    cache is copied to grow. Matching an image with a text takes less than to encode it.

    What is recorded as CUDA graphs keeps its memory: the states of a layer of the language model that reads an image
    and a prompt, and the logits of all texts, in fp32 too, come on top of it. The cache is not copied to grow, but the
    keys and values of images with several prompts are.
    """
    vision, text = config.vision_config, config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    seen = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
    layers, width = text.num_hidden_layers, text.hidden_size
    kept = 2 * SLOTS_PER_IMAGE * COLUMNS * 2 * layers * width if writes else 0
    if writes and recorded:
        widest = 2 * (getattr(text, "ffn_dim", None) or getattr(text, "d_ff", 4 * width))
        kept += COLUMNS * (6 * width + widest) + 3 * SLOTS_PER_IMAGE * text.vocab_size
    return int((seen + kept) * itemsize)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken: of the GPU, or of this machine within its control group's limit."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_ram()


def free_ram() -> int:
    """Memory of this machine that can still be taken, within the control group's limit."""
    free = [_available()]
    for folder, limit_file, anonymous in CONTROL_GROUPS:
        limit = _read(folder / limit_file)
        used = dict(line.split() for line in _read(folder / "memory.stat").splitlines()).get(anonymous)
        if limit.isdigit() and used is not None:
            free.append(max(int(limit) - int(used), 0))
    return min(free)


def group_limit() -> int | None:
    """The memory that the control group may take; None without a limit."""
    limits = [_read(folder / limit_file) for folder, limit_file, _ in CONTROL_GROUPS]
    set_ones = [int(limit) for limit in limits if limit.isdigit() and int(limit) < UNLIMITED]
    return min(set_ones, default=None)


def _available() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such control group
        return ""
