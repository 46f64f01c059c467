"""What the retrieval model computes, piece by piece, so that an image is encoded once for many texts.

Together the pieces equal `Blip2ForImageTextRetrieval.forward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import Blip2ForImageTextRetrieval, PreTrainedTokenizerFast


@dataclass(frozen=True)
class PaddedTexts:
    """T texts as the model reads them, padded to one length L."""

    input_ids: torch.Tensor  # [T, L]
    attention_mask: torch.Tensor  # [T, L]

    def __getitem__(self, texts: torch.Tensor) -> PaddedTexts:
        return PaddedTexts(self.input_ids[texts], self.attention_mask[texts])


def tokens_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> PaddedTexts:
    """Tokenize texts."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    return PaddedTexts(encoded.input_ids, encoded.attention_mask)


def image_features(model: Blip2ForImageTextRetrieval, image_embeds: torch.Tensor) -> torch.Tensor:
    """Normalised features of each query [B, NUM_QUERIES, PROJECTION], from the vision tower's output [B, 65, WIDTH]."""
    query_tokens = model.query_tokens.expand(len(image_embeds), -1, -1)
    query_output = model.qformer(query_embeds=query_tokens, encoder_hidden_states=image_embeds).last_hidden_state
    return functional.normalize(model.vision_projection(query_output), dim=-1)


def text_features(model: Blip2ForImageTextRetrieval, tokens: PaddedTexts) -> torch.Tensor:
    """Normalised features of each text's first token [T, PROJECTION]."""
    output = model.qformer(
        query_embeds=model.embeddings(input_ids=tokens.input_ids),
        query_length=0,
        attention_mask=tokens.attention_mask,
    ).last_hidden_state
    return functional.normalize(model.text_projection(output[:, 0]), dim=-1)


def contrastive_scores(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
    """ITC scores [B, T]: the largest cosine between any of the image's queries and the text."""
    return torch.einsum("bqd,td->bqt", image_features, text_features).amax(dim=1)


def match_logits(model: Blip2ForImageTextRetrieval, image_embeds: torch.Tensor, tokens: PaddedTexts) -> torch.Tensor:
    """ITM logits [P, 2] of P pairs; the second is for a match. Queries and text attend to each other."""
    pairs, number = len(image_embeds), model.query_tokens.shape[1]
    query_tokens = model.query_tokens.expand(pairs, -1, -1)
    output = model.qformer(
        query_embeds=model.embeddings(input_ids=tokens.input_ids, query_embeds=query_tokens),
        query_length=number,
        attention_mask=torch.cat([tokens.attention_mask.new_ones(pairs, number), tokens.attention_mask], dim=1),
        encoder_hidden_states=image_embeds,
    ).last_hidden_state
    return model.itm_head(output[:, :number]).mean(dim=1)
