"""OPT's layers. Matches transformers' `OPTForCausalLM` in evaluation mode."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from blip2cli.model.decoding.decoder_only import Attend, DecoderOnly
from blip2cli.model.graphs import Runner


class OptDecoder(DecoderOnly):
    """The language model of an OPT checkpoint."""

    def __init__(self, language_model: Any, runner: Runner, image_token: int | None = None) -> None:
        self.decoder = language_model.model.decoder
        self.head = language_model.lm_head
        self.embedding, self.layers = self.decoder.embed_tokens, self.decoder.layers
        super().__init__(language_model, runner, image_token)

    def _place(self, embeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        table = self.decoder.embed_positions
        placed = F.embedding(positions + table.offset, table.weight)
        inside = embeds if self.decoder.project_in is None else self.decoder.project_in(embeds)
        return inside + placed

    def _layer(self, layer: Any, hidden: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        before, attention = layer.do_layer_norm_before, layer.self_attn
        residual = hidden
        hidden = layer.self_attn_layer_norm(hidden) if before else hidden
        q = self._split(attention.q_proj(hidden) * attention.scaling)
        attended = attend(q, self._split(attention.k_proj(hidden)), self._split(attention.v_proj(hidden)))
        hidden = residual + attention.out_proj(attended.transpose(1, 2).reshape(hidden.shape))
        hidden = hidden if before else layer.self_attn_layer_norm(hidden)
        residual = hidden
        hidden = layer.final_layer_norm(hidden) if before else hidden
        hidden = residual + layer.fc2(layer.activation_fn(layer.fc1(hidden)))
        return hidden if before else layer.final_layer_norm(hidden)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.decoder.final_layer_norm is not None:
            hidden = self.decoder.final_layer_norm(hidden)
        inside = hidden if self.decoder.project_out is None else self.decoder.project_out(hidden)
        logits: torch.Tensor = self.head(inside)
        return logits
