"""Train the bundled model from nothing: `python -m blip2cli.tiny.train [--out FOLDER]`. Seeds are fixed.

Two stages (see `vision_stage` and `language_stage`); then the checkpoint is written in fp16. easy-VQA's test split is
never read here, and the last weights are the ones kept: no checkpoint is chosen by any figure.
"""

import argparse
import time
from pathlib import Path

import torch

from .architecture import build_processor, export, new_model, parameter_count
from .easy_vqa import pictures
from .guides import Guides
from .language_stage import train_language
from .tokenizer import build_tokenizer
from .validation import held_out, validate
from .vision_stage import train_vision

SEED = 7
VISION_STEPS = 800
LANGUAGE_STEPS = 3600
_HELD_OUT_PICTURES = 60


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.tiny.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("tiny-model"), help="folder for the checkpoint (default: tiny-model)"
    )
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--validate-every", type=int, default=300, help="steps between validations and exports")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.out, options.vision_steps, options.language_steps, options.validate_every)


def train(out: Path, vision_steps: int, language_steps: int, validate_every: int) -> None:
    """Run both stages, and write the checkpoint to `out` now and then and at the end."""
    started = time.monotonic()
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    model = new_model(tokenizer, SEED).train()
    guides = Guides()
    everything = pictures("train")
    validation = held_out(everything[-_HELD_OUT_PICTURES:], scenes=300)
    print(f"{parameter_count(model):,} parameters, {len(tokenizer)} tokens", flush=True)
    train_vision(model, guides, vision_steps, SEED)

    def after_step(done: int) -> None:
        if done % validate_every == 0 or done == language_steps:
            print(f"step {done}: {validate(model, processor, validation)}", flush=True)
            export(model, tokenizer, out)

    train_language(model, guides, tokenizer, everything[:-_HELD_OUT_PICTURES], language_steps, SEED + 1, after_step)
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
