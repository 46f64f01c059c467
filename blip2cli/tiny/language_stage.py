"""Second stage: all three towers learn together to caption and to answer, on easy-VQA and rendered scenes."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch.nn import functional
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from .batches import Packed, Packer, pixel_tensor
from .easy_vqa import Picture
from .examples import UNKNOWN, Example, easy_vqa_examples, scene_examples
from .guides import Guides
from .schedule import descend, new_optimizer, set_rate, training_precision

EASY_VQA_IMAGES = 14
SCENES = 18
PEAK_RATE = 1e-3
_GUIDE_END = 0.6  # share of the steps by which the patch loss has faded out


def train_language(
    model: Blip2ForConditionalGeneration,
    guides: Guides,
    tokenizer: PreTrainedTokenizerFast,
    pictures: list[Picture],
    steps: int,
    seed: int,
    after_step: Callable[[int], None],
) -> None:
    """Train `model` in place; `after_step` is called with the number of steps done, to validate and save."""
    parameters = [*model.parameters(), *guides.parameters()]
    optimizer = new_optimizer(parameters, PEAK_RATE)
    packer = Packer(tokenizer)
    started = time.monotonic()
    for step, examples in enumerate(islice(_mixed(pictures, seed), steps)):
        set_rate(optimizer, PEAK_RATE, step, steps)
        with training_precision():
            image_embeds, query_output = see(model, pixel_tensor([example.pixels for example in examples]))
            text = text_loss(model, query_output, packer.pack(examples))
            queries = guides.query_loss(query_output, examples)
            patches = guides.patch_loss(image_embeds, examples)
            loss = text + 0.5 * queries + max(0.0, 1 - step / steps / _GUIDE_END) * patches
        descend(loss, optimizer)
        if step % 40 == 0 or step == steps - 1:
            parts = f"text {text.item():.4f} queries {queries.item():.4f} patches {patches.item():.4f}"
            print(f"language {step}/{steps} {parts} {time.monotonic() - started:.0f} s", flush=True)
        after_step(step + 1)


def see(model: Blip2ForConditionalGeneration, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The vision tower's output [B, 65, WIDTH] and the Q-Former's [B, NUM_QUERIES, WIDTH]."""
    image_embeds = model.vision_model(pixel_values).last_hidden_state
    query_tokens = model.query_tokens.expand(len(pixel_values), -1, -1)
    query_output = model.qformer(query_embeds=query_tokens, encoder_hidden_states=image_embeds).last_hidden_state
    return image_embeds, query_output


def text_loss(model: Blip2ForConditionalGeneration, query_output: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Mean cross-entropy of the answers', captions' and end tokens."""
    text_embeds = model.get_input_embeddings()(packed.input_ids)
    decoder = model.language_model.model.decoder
    hidden = decoder(
        inputs_embeds=torch.cat([model.language_projection(query_output), text_embeds], dim=1),
        attention_mask=packed.attention_mask,
        position_ids=packed.position_ids,
        use_cache=False,
    ).last_hidden_state[:, query_output.shape[1] :]
    wanted = packed.labels != UNKNOWN
    logits = model.language_model.lm_head(hidden[wanted])
    return functional.cross_entropy(logits.float(), packed.labels[wanted])


def _mixed(pictures: list[Picture], seed: int) -> Iterator[list[Example]]:
    easy, scenes = easy_vqa_examples(pictures, seed), scene_examples(seed + 1)
    while True:
        yield [*islice(easy, EASY_VQA_IMAGES), *islice(scenes, SCENES)]
