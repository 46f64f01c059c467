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

    def __init__(self, checkpoint: Path, dtype: torch.dtype) -> None:
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        self.dtype = dtype
        self.processor = Blip2Processor.from_pretrained(checkpoint, backend="pil")
        self.processor.tokenizer.padding_side = "left"
        self.model = Blip2ForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype).eval()

    def batches(self, paths: Sequence[Path], prompts: Sequence[str | None], batch_size: int) -> DataLoader[Any]:
        """Batches of pixel values and prompts."""
        images = ProcessedImages(self.processor, paths, prompts)
        return DataLoader(images, batch_size=batch_size, num_workers=cores(), collate_fn=_collate)

    @torch.inference_mode()
    def write(
        self, paths: Sequence[Path], prompts: Sequence[str | None], lengths: Sequence[int], batch_size: int
    ) -> int:
        """Write a text of each length; gives the number of tokens."""
        tokens = 0
        for number, (pixels, texts) in enumerate(self.batches(paths, prompts, batch_size)):
            wanted = torch.tensor(lengths[number * batch_size : number * batch_size + len(pixels)])
            inputs: dict[str, Any] = {"pixel_values": pixels.to(self.dtype)}
            prompted = 0
            if texts[0] is not None:
                encoded = self.processor.tokenizer(
                    [IMAGE * 32 + text for text in texts], padding=True, return_tensors="pt"
                )
                inputs |= {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
                prompted = encoded["input_ids"].shape[1]
            written = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=int(wanted.max()),
                eos_token_id=None,
                stopping_criteria=[_lengths_reached(wanted, prompted or 33)],
            )
            tokens += int(wanted.sum()) if len(written) else 0
        return tokens


IMAGE = "<image>"


def _lengths_reached(wanted: torch.Tensor, prompted: int) -> Callable[..., torch.Tensor]:
    """A stopping criterion: each row ends at its own number of new tokens."""
    from transformers import StoppingCriteria

    class LengthsReached(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            reached: torch.Tensor = input_ids.shape[1] - prompted >= wanted
            return reached

    criterion: Callable[..., torch.Tensor] = LengthsReached()
    return criterion


def _collate(samples: list[tuple[torch.Tensor, str | None]]) -> tuple[torch.Tensor, list[str | None]]:
    return torch.stack([pixels for pixels, _ in samples]), [prompt for _, prompt in samples]
