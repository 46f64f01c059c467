"""The reference: the strongest loop that a careful user writes around transformers' processor and `generate`.

A DataLoader whose workers run the processor feeds batches to `model.generate` under inference mode; prompts are padded
on the left; text lengths are imposed on each row by a stopping criterion, as they are on ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from blip2cli.host.processor import cores


class ProcessedImages(Dataset[Any]):
    """Images by path through transformers' processor, in DataLoader workers."""

    def __init__(self, processor: Any, paths: Sequence[Path], prompts: Sequence[str | None]) -> None:
        self.processor, self.paths, self.prompts = processor, paths, prompts

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, str | None]:
        with Image.open(self.paths[at]) as image:
            pixels = self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return pixels, self.prompts[at]


class ReferenceLoop:
    """transformers' own model in one dtype."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype, device: str = "cpu") -> None:
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        self.dtype, self.device = dtype, device
        self.processor = Blip2Processor.from_pretrained(checkpoint, backend="pil")
        self.processor.tokenizer.padding_side = "left"
        self.model = Blip2ForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype).eval().to(device)
        self.repeats_prompt = not self.model.config.text_config.is_encoder_decoder

    def batches(self, paths: Sequence[Path], prompts: Sequence[str | None], batch_size: int) -> DataLoader[Any]:
        """Batches of pixel values and prompts."""
        images = ProcessedImages(self.processor, paths, prompts)
        pinned = self.device != "cpu"
        return DataLoader(images, batch_size, num_workers=cores(), collate_fn=_collate, pin_memory=pinned)

    @torch.inference_mode()
    def write(
        self, paths: Sequence[Path], prompts: Sequence[str | None], lengths: Sequence[int], batch_size: int
    ) -> int:
        """Write a text of each length; gives the number of tokens."""
        tokens = 0
        for number, (pixels, texts) in enumerate(self.batches(paths, prompts, batch_size)):
            wanted_lengths = torch.tensor(
                lengths[number * batch_size : number * batch_size + len(pixels)], device=self.device
            )
            inputs: dict[str, Any] = {"pixel_values": pixels.to(self.device, self.dtype, non_blocking=True)}
            prompted = 33
            if texts[0] is not None:
                encoded = self.processor.tokenizer(
                    [IMAGE * 32 + text for text in texts], padding=True, return_tensors="pt"
                )
                inputs |= {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}
                prompted = encoded["input_ids"].shape[1]
            written = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=int(wanted_lengths.max()),
                eos_token_id=None,
                stopping_criteria=[_lengths_reached(wanted_lengths, prompted if self.repeats_prompt else 1)],
            )
            tokens += int(wanted_lengths.sum()) if len(written) else 0
        return tokens

    @torch.inference_mode()
    def embed(self, paths: Sequence[Path], batch_size: int) -> None:
        """Q-Former features of every image, on the host."""
        for pixels, _ in self.batches(paths, [None] * len(paths), batch_size):
            pixel_values = pixels.to(self.device, self.dtype, non_blocking=True)
            image_embeds = self.model.vision_model(pixel_values).last_hidden_state
            query_tokens = self.model.query_tokens.expand(len(pixel_values), -1, -1)
            self.model.qformer(query_embeds=query_tokens, encoder_hidden_states=image_embeds).last_hidden_state.cpu()

    @torch.inference_mode()
    def search_beams(self, paths: Sequence[Path], beams: int, most: int, batch_size: int) -> None:
        """Captions by beam search."""
        for pixels, _ in self.batches(paths, [None] * len(paths), batch_size):
            pixel_values = pixels.to(self.device, self.dtype, non_blocking=True)
            self.model.generate(pixel_values, do_sample=False, num_beams=beams, max_new_tokens=most).cpu()

    @torch.inference_mode()
    def decode_beams(self, query_embeds: torch.Tensor, beams: int, most: int, batch_size: int) -> None:
        """Captions by beam search of images that are encoded [images, num_query_tokens, language width]."""
        language_model, bos = self.model.language_model, self.model.config.text_config.bos_token_id
        for embeds in query_embeds.to(self.dtype).split(batch_size):
            start = language_model.get_input_embeddings()(torch.full((len(embeds), 1), bos))
            mask = torch.ones(len(embeds), embeds.shape[1] + 1, dtype=torch.long)
            inputs_embeds = torch.cat([embeds, start], dim=1)
            language_model.generate(
                inputs_embeds=inputs_embeds, attention_mask=mask, do_sample=False, num_beams=beams, max_new_tokens=most
            )


IMAGE = "<image>"


def _lengths_reached(wanted_lengths: torch.Tensor, prompted: int) -> Callable[..., torch.Tensor]:
    """A stopping criterion: each row ends at its own number of new tokens."""
    from transformers import StoppingCriteria

    class LengthsReached(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            reached: torch.Tensor = input_ids.shape[1] - prompted >= wanted_lengths
            return reached

    criterion: Callable[..., torch.Tensor] = LengthsReached()
    return criterion


def _collate(samples: list[tuple[torch.Tensor, str | None]]) -> tuple[torch.Tensor, list[str | None]]:
    return torch.stack([pixels for pixels, _ in samples]), [prompt for _, prompt in samples]
