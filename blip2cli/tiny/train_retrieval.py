"""Train the bundled retrieval model: `python -m blip2cli.tiny.train_retrieval [--out FOLDER]`. Seeds are fixed.

It starts from the trained vision tower and Q-Former of the model in `--start`, the bundled one by default (see
`retrieval_stage`), and writes the checkpoint in fp16. No checkpoint is chosen by any figure: the last weights stay.
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import Blip2ForConditionalGeneration

from . import MODEL_DIR
from .architecture import export, new_retrieval_model, parameter_count
from .retrieval_stage import train_retrieval
from .retrieval_validation import gallery, per_cent, retrieval_figures
from .tokenizer import build_retrieval_tokenizer
from .validation import HELD_OUT_SEED

SEED = 31
STEPS = 2800
_GALLERY = 200


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.tiny.train_retrieval", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("tiny-retrieval"), help="folder for the checkpoint (default: tiny-retrieval)"
    )
    parser.add_argument(
        "--start", type=Path, default=MODEL_DIR, help="folder of the trained model to start from (default: bundled)"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--validate-every", type=int, default=400, help="steps between validations and exports")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.out, options.start, options.steps, options.validate_every)


def train(out: Path, start: Path, steps: int, validate_every: int) -> None:
    """Train, and write the checkpoint to `out` now and then and at the end."""
    started = time.monotonic()
    tokenizer = build_retrieval_tokenizer()
    model = new_retrieval_model(tokenizer, Blip2ForConditionalGeneration.from_pretrained(start), SEED)
    validation = gallery(HELD_OUT_SEED, _GALLERY)
    print(f"{parameter_count(model):,} parameters, {len(tokenizer)} tokens", flush=True)

    def after_step(done: int) -> None:
        if done % validate_every == 0 or done == steps:
            print(f"step {done}: {per_cent(retrieval_figures(model, tokenizer, validation))}", flush=True)
            export(model, build_retrieval_tokenizer(), out)  # a used one would keep its padding

    train_retrieval(model, tokenizer, steps, SEED, after_step)
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
