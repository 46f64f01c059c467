"""The tool's own pipeline on the benchmark's material: loader, encoder and decoder as `run` uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blip2cli.inputs import ColumnChoice, open_source
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.checkpoint.layers_used import layers_used
from blip2cli.model.decoding.requests import EncodedImage, Request
from blip2cli.records import Batch
from blip2cli.run.pipeline import load_for
from blip2cli.settings import GenerationSettings, ModelSettings


class Ours:
    """Our model in one precision."""

    def __init__(self, checkpoint: Path | str, dtype: Any, batch_size: int, device: str = "auto") -> None:
        self.settings = ModelSettings(model=str(checkpoint), dtype=dtype, device=device)
        self.model = Blip2Model(find_checkpoint(self.settings, "generation"), batch_size)

    @property
    def layers(self) -> str:
        """The kinds of linear layers that run."""
        return layers_used(self.model.model)

    def batches(self, folder: Path, workers: int | None = None, exact: bool = False) -> Iterator[Batch]:
        """The folder's images as the run's loader gives them."""
        rows = open_source([str(folder)], ColumnChoice()).rows()
        return load_for(self.model, rows, replace(self.settings, workers=workers, exact_pixels=exact))

    def write(self, folder: Path, prompts: Sequence[str | None], lengths: Sequence[int], batch_size: int) -> int:
        """Write a text of each length for every image and prompt; gives the number of tokens."""
        self.model.batch_size = batch_size
        self.model.forget()
        requests = self._requests(folder, prompts, [(length, length) for length in lengths])
        return sum(len(completion.token_ids) for completion in self.model.generate(requests, GenerationSettings()))

    def search_beams(self, folder: Path, beams: int, most: int, batch_size: int) -> dict[int, tuple[int, ...]]:
        """Captions by beam search: token ids by the image's number."""
        self.model.batch_size = batch_size
        self.model.forget()
        bounds = [(0, most)] * len(list(folder.iterdir()))
        settings = GenerationSettings(num_beams=beams)
        return {
            done.key: done.token_ids for done in self.model.generate(self._requests(folder, [None], bounds), settings)
        }

    def decode_beams(
        self, query_embeds: Sequence[torch.Tensor], beams: int, most: int, batch_size: int
    ) -> dict[int, tuple[int, ...]]:
        """Captions by beam search of images that are encoded: token ids by the image's number."""
        self.model.batch_size = batch_size
        prompt = self.model.prompt_ids(None)
        requests = [Request(at, EncodedImage(embeds), prompt, (0, most)) for at, embeds in enumerate(query_embeds)]
        completions = self.model.generate(iter(requests), GenerationSettings(num_beams=beams))
        return {done.key: done.token_ids for done in completions}

    def _requests(
        self, folder: Path, prompts: Sequence[str | None], lengths: Sequence[tuple[int, int]]
    ) -> Iterator[Request]:
        number = 0
        for batch in self.batches(folder):
            for image in self.model.encode(batch):
                image.uses = len(prompts)
                for prompt in prompts:
                    yield Request(number, image, self.model.prompt_ids(prompt), lengths[number])
                    number += 1

    def embed(self, folder: Path) -> int:
        """Q-Former features of every image; gives their number."""
        self.model.forget()
        return sum(len(self.model.query_output(batch)) for batch in self.batches(folder))

    @torch.inference_mode()
    def bare_qformer(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Vision model and Q-Former on pixel values in memory: only the model's forward pass."""
        model = self.model.model
        image_embeds = model.vision_model(pixel_values.to(self.model.checkpoint.dtype)).last_hidden_state
        mask = torch.ones(image_embeds.shape[:2], dtype=torch.long)
        query_tokens = model.query_tokens.expand(len(pixel_values), -1, -1)
        hidden: torch.Tensor = model.qformer(
            query_embeds=query_tokens, encoder_hidden_states=image_embeds, encoder_attention_mask=mask
        ).last_hidden_state
        return hidden
