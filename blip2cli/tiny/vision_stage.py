"""First stage: the vision tower learns to see. It labels the patches of rendered scenes through heads thrown away."""

import time
from itertools import islice

from transformers import Blip2ForConditionalGeneration

from .batches import pixel_tensor
from .examples import scene_examples
from .guides import Guides
from .schedule import descend, new_optimizer, set_rate, training_precision

BATCH = 64
PEAK_RATE = 1e-3


def train_vision(model: Blip2ForConditionalGeneration, guides: Guides, steps: int, seed: int) -> None:
    """Train `model.vision_model` and the patch heads of `guides` in place for `steps` steps."""
    parameters = [*model.vision_model.parameters(), *guides.parameters()]
    optimizer = new_optimizer(parameters, PEAK_RATE)
    stream = scene_examples(seed)
    started = time.monotonic()
    for step in range(steps):
        set_rate(optimizer, PEAK_RATE, step, steps)
        examples = list(islice(stream, BATCH))
        with training_precision():
            image_embeds = model.vision_model(pixel_tensor([example.pixels for example in examples])).last_hidden_state
            loss = guides.patch_loss(image_embeds, examples)
        descend(loss, optimizer)
        if step % 40 == 0 or step == steps - 1:
            print(f"vision {step}/{steps} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
