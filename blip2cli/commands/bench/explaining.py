"""What --explain costs: `python -m blip2cli.commands.bench.explaining`.

The Q-Former and the embeddings of the image are as large as those of the public checkpoints at 224 pixels, with random
weights: what they compute takes as long. The vision model has one layer, as it is not part of a map; the language model
is as large as OPT-125M. Prints a Markdown table of milliseconds a text on this machine, the best of several times.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blip2cli.commands.bench.machine import describe_machine
from blip2cli.images.decode import Reading
from blip2cli.images.loader import Loading, load
from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.model import load_model
from blip2cli.model.batches import Failed
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.requests import Request
from blip2cli.records import Batch
from blip2cli.settings import GenerationSettings, Kind, ModelSettings
from blip2cli.tiny import MODEL_DIR, RETRIEVAL_DIR

SIDE, TEXT = 224, "a red circle and a"
TIMES = 5


def write_checkpoint(folder: Path, kind: Kind) -> Path:
    """A checkpoint of that kind in a new folder, with the bundled one's tokenizer."""
    import transformers

    vision = transformers.Blip2VisionConfig(num_hidden_layers=1, image_size=SIDE)
    reader = transformers.PreTrainedTokenizerFast.from_pretrained(RETRIEVAL_DIR if kind == "retrieval" else MODEL_DIR)
    qformer = transformers.Blip2QFormerConfig(use_qformer_text_input=kind == "retrieval", vocab_size=len(reader))
    text = transformers.OPTConfig(
        vocab_size=len(reader), hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12,
        bos_token_id=reader.bos_token_id, eos_token_id=reader.eos_token_id, pad_token_id=reader.pad_token_id,
    )  # fmt: skip
    config = transformers.Blip2Config(vision_config=vision, qformer_config=qformer, text_config=text)
    names = {"retrieval": "Blip2ForImageTextRetrieval", "generation": "Blip2ForConditionalGeneration"}
    getattr(transformers, names[kind])(config).save_pretrained(folder)
    images = transformers.BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    transformers.Blip2Processor(images, reader, num_query_tokens=config.num_query_tokens).save_pretrained(folder)
    images.save_pretrained(folder)
    return folder


def loaded(folder: Path, kind: Kind, dtype: Any) -> tuple[Any, Batch]:
    """The model, and a batch of one image."""
    from PIL import Image

    model = load_model(find_checkpoint(ModelSettings(str(write_checkpoint(folder, kind)), dtype=dtype), kind), 1)
    Image.effect_noise((SIDE, SIDE), 64).convert("RGB").save(folder / "noise.png")
    rows = open_source([str(folder / "noise.png")], ColumnChoice()).rows()
    return model, next(load(rows, Reading(SIDE), 1, Loading(workers=0)))


def of_match(folder: Path, dtype: Any) -> dict[str, float]:
    """Milliseconds of ITM for a pair, of its map, and of the maps of its words."""
    model, batch = loaded(folder / "retrieval", "retrieval", dtype)
    (image,), (text,) = model.see(batch), model.read([TEXT])
    return {
        "match: the score of ITM": best(lambda: model.itm([(image, text)])),
        "match: a map": best(lambda: worked(model.explain(image, text))),
        "match: maps of the text and its words": best(lambda: worked(model.explain(image, text, words=True))),
    }


def of_caption(folder: Path, dtype: Any) -> dict[str, float]:
    """Milliseconds of writing a text of as many tokens, of its map, and of the maps of its words."""
    model, batch = loaded(folder / "generation", "generation", dtype)
    (image,) = model.encode_to_explain(batch)
    prompt, text = model.prompt_ids(None), model.answer_ids(TEXT)
    settings = GenerationSettings(max_new_tokens=len(text))

    def write() -> None:
        image.uses = 1
        list(model.generate([Request(0, image, prompt, (len(text), len(text)))], settings))

    return {
        "caption: writing it": best(write),
        "caption: a map": best(lambda: worked(model.explain(image, prompt, text))),
        "caption: maps of the text and its words": best(lambda: worked(model.explain(image, prompt, text, words=True))),
    }


def best(run: Callable[[], object]) -> float:
    """The least of several times, in milliseconds."""
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - started))
    return min(taken)


def worked(explanation: Any) -> None:
    """Stop if there is no explanation."""
    if isinstance(explanation, Failed):
        raise SystemExit(str(explanation.error))


def main() -> None:
    """Parse the options, measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m blip2cli.commands.bench.explaining", description=__doc__)
    parser.add_argument("--dtype", nargs="+", default=["fp32", "int8"], help="precisions to measure")
    options = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    for dtype in options.dtype:
        with tempfile.TemporaryDirectory() as folder:
            columns[dtype] = of_match(Path(folder), dtype) | of_caption(Path(folder), dtype)
    print(f"{describe_machine()}\n\n| milliseconds | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(f'{column[name]:.0f}' for column in columns.values())} |")


if __name__ == "__main__":
    main()
