"""How many images are encoded together: by the checkpoint's shapes and the memory that is
free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blip2cli.host.memory import free_ram

if TYPE_CHECKING:
    import torch

LARGEST_BATCH = {"cuda": 64}
"""The most images that are encoded together, by device: a GPU is busy with so many."""

LARGEST_BATCH_ELSEWHERE = 8
"""The same on other devices: on a CPU, more images at once are not faster."""

SMALL_MODEL = 50_000_000
"""Parameters below which a model gets larger batches: it spends its time in Python."""

LARGEST_BATCH_OF_SMALL_MODEL = 64

SLOTS_PER_IMAGE = 8
"""Texts that are decoded together for each image of a batch: more texts make a decoding
step hardly slower."""

TOKENS_PER_TEXT = 64
"""Tokens that a text is expected to need in the cache: the image's, the prompt's and its
own."""

SHARE = 0.5
"""The part of the free memory that the estimate may fill; the rest is for what it does
not include."""


def automatic_batch_size(model: Any, devices: Sequence[torch.device], weights: int, ranked: bool = False) -> int:
    """Images to encode together: the largest power of two that is useful and, by the
    estimate, fits on each device.

    `weights` is the number of weights in the checkpoint, because packed and quantised
    layers have no parameters; `ranked` is whether a second model ranks the texts.
    """
    small = weights < SMALL_MODEL
    largest = LARGEST_BATCH_OF_SMALL_MODEL if small else LARGEST_BATCH.get(devices[0].type, LARGEST_BATCH_ELSEWHERE)
    recorded = len(devices) == 1 and devices[0].type == "cuda"
    each = bytes_per_image(model.config, model.dtype.itemsize, hasattr(model, "language_model"), recorded, ranked)
    fits = int(SHARE * min(map(free_bytes, devices)) / each)
    return min(largest, 1 << max(fits, 1).bit_length() - 1)


def bytes_per_image(
    config: Any, itemsize: int, writes: bool = True, recorded: bool = False, ranked: bool = False
) -> int:
    """An estimate of the most bytes that an image of the batch takes at once, without the
    weights.

    Vision: in one layer, the states of every patch (input, normed, queries, keys, values,
    output) and those of the MLP, before and after its activation. Language, if the model
    writes: keys and values of SLOTS_PER_IMAGE texts, twice, because the cache is copied
    when it grows. Matching an image with a text takes less than encoding the image.

    Functions that are recorded as CUDA graphs keep their memory. This adds the states of
    one layer of the language model that reads an image and a prompt, and the logits of
    all texts, also in fp32. The cache is not copied when it grows then, but the keys and
    values of images with several prompts are.

    If the texts are ranked, an image's embeddings are kept until its texts are written:
    those of an image for each text that is decoded, and those of the batch.
    """
    vision, text = config.vision_config, config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    numbers = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
    layers, width = text.num_hidden_layers, text.hidden_size
    if writes:
        numbers += 2 * SLOTS_PER_IMAGE * TOKENS_PER_TEXT * 2 * layers * width
    if writes and recorded:
        in_mlp = 2 * (getattr(text, "ffn_dim", None) or getattr(text, "d_ff", 4 * width))
        numbers += TOKENS_PER_TEXT * (6 * width + in_mlp) + 3 * SLOTS_PER_IMAGE * text.vocab_size
    if ranked:
        numbers += (SLOTS_PER_IMAGE + 1) * patches * vision.hidden_size
    return int(numbers * itemsize)


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that can still be taken, of a GPU or of this machine."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_ram()
