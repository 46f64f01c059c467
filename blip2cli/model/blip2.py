"""Blip2Model encodes batches of images, writes texts, and gives features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TypeVar

import torch

from blip2cli.errors import Blip2Error
from blip2cli.host.stepping import taken_within
from blip2cli.model.batches import Failed
from blip2cli.model.checkpoint.record import Checkpoint, Ranker
from blip2cli.model.checkpoint.tokenizer import LONGEST_TOKEN, token_ids
from blip2cli.model.decoding.beams import BeamSearch
from blip2cli.model.decoding.loop import Decoder
from blip2cli.model.decoding.pieces import Pieces
from blip2cli.model.decoding.requests import Completion, EncodedImage, Request, TooLong
from blip2cli.model.decoding.sampling import Sampler
from blip2cli.model.explain import Explanation, maps_of, recorded_attention, words_of
from blip2cli.model.families import Family
from blip2cli.model.graphs import PendingRow, Tensors, runner_for
from blip2cli.model.loaded import LoadedCheckpoint
from blip2cli.model.memory import SLOTS_PER_IMAGE
from blip2cli.model.recent import NOT_FINITE, PendingEncodings, RecentImages, is_not_finite
from blip2cli.model.retrieval import KEPT_IMAGES, RetrievalModel, SeenImage
from blip2cli.records import Batch
from blip2cli.settings import GenerationSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ImageEncodings:
    """An image as the language model sees it, and what else was asked for: see EncodedImage."""

    query_embeds: torch.Tensor
    seen: SeenImage | None = None
    image_embeds: torch.Tensor | None = None

    def clone(self) -> ImageEncodings:
        """A copy in memory of its own."""
        seen = None if self.seen is None else self.seen.clone()
        image_embeds = None if self.image_embeds is None else self.image_embeds.clone()
        return ImageEncodings(self.query_embeds.clone(), seen, image_embeds)


class Blip2Model(LoadedCheckpoint):
    """A loaded checkpoint with a language model, with SLOTS_PER_IMAGE slots for texts for
    each image of a batch. `ranker` is the model that ranks its texts, if there is one, and
    `shares_vision` whether both have the same vision layers."""

    ranker: RetrievalModel | None = None
    shares_vision = False

    def __init__(self, checkpoint: Checkpoint, batch_size: int | None = None) -> None:
        super().__init__(checkpoint, batch_size)
        self._idle: dict[tuple[GenerationSettings, int, int], Decoder] = {}

    @property
    def family(self) -> Family:
        """The language model's family."""
        family = self.checkpoint.family
        assert family is not None, "a checkpoint that writes"
        return family

    def ranked_by(self, ranker: Ranker) -> Blip2Model:
        """The same model together with one that ranks its texts, which is loaded now.

        Raises CheckpointError.
        """
        ranked = copy(self)
        ranked.ranker = RetrievalModel(ranker.checkpoint, self.batch_size)
        if ranker.shares_vision:
            ranked.ranker.share_vision(self)
        if self.chooses_batch_size:
            ranked.started_with = ranked.batch_size = min(self.batch_size, self.fitting_batch_size(ranked=True))
        ranked.shares_vision = ranker.shares_vision
        ranked.recent = RecentImages(self.batches, KEPT_IMAGES)
        ranked.runner = runner_for(self.checkpoint.devices)
        ranked._idle = {}
        return ranked

    def encode(self, batch: Batch) -> list[EncodedImage]:
        """The batch's images as the language model sees them, with `uses` 0."""

        def forward(pixels: torch.Tensor) -> Tensors:
            return (self.encoder.query_embeds(pixels),)

        def encode(pixels: torch.Tensor) -> Iterable[ImageEncodings]:
            return map(ImageEncodings, self.run_on_images("embeds", forward, pixels)[0])

        return self._encoded("embeds", encode, batch)

    def encode_to_rank(self, batch: Batch) -> list[EncodedImage]:
        """The same, each also `seen` by the ranker. If both models hold the same vision
        weights, an image goes through them once."""
        ranker = self.ranker
        assert ranker is not None, "a model with a ranker"

        def forward(pixels: torch.Tensor) -> Tensors:
            if not self.shares_vision:
                return self.encoder.query_embeds(pixels), *ranker.features_of(ranker.encoder.vision(pixels)[0])
            states = self.encoder.patch_states(pixels)
            query_embeds = self.encoder.query_embeds_of(self.encoder.image_embeds(states))
            return query_embeds, *ranker.features_of(ranker.encoder.image_embeds(states))

        def encode(pixels: torch.Tensor) -> Iterator[ImageEncodings]:
            for embeds, *seen in zip(*self.run_on_images("ranked", forward, pixels), strict=True):
                yield ImageEncodings(embeds, seen=SeenImage(*seen))

        return self._encoded("ranked", encode, batch)

    def encode_to_explain(self, batch: Batch) -> list[EncodedImage]:
        """The same as `encode`; the images keep their `image_embeds`, which `explain`
        needs."""

        def forward(pixels: torch.Tensor) -> Tensors:
            image_embeds, _ = self.encoder.vision(pixels)
            return self.encoder.query_embeds_of(image_embeds), image_embeds

        def encode(pixels: torch.Tensor) -> Iterator[ImageEncodings]:
            for embeds, patches in zip(*self.run_on_images("patches", forward, pixels), strict=True):
                yield ImageEncodings(embeds, image_embeds=patches)

        return self._encoded("patches", encode, batch)

    def _encoded(
        self, kind: str, encode: Callable[[torch.Tensor], Iterable[ImageEncodings]], batch: Batch
    ) -> list[EncodedImage]:
        """The batch's images, encoded now or kept from earlier; `kind` names what `encode` computes."""

        def checked(pixels: torch.Tensor) -> Iterator[ImageEncodings | Failed]:
            for encodings in encode(pixels):
                yield Failed(NOT_FINITE) if is_not_finite(encodings.query_embeds) else encodings

        images = []
        for encodings in self.recent.encoded(kind, checked, batch):
            if isinstance(encodings, Failed):
                images.append(EncodedImage(torch.empty(0), uses=0, error=encodings.error))
            else:
                embeds, seen, image_embeds = encodings.query_embeds, encodings.seen, encodings.image_embeds
                images.append(EncodedImage(embeds, uses=0, seen=seen, image_embeds=image_embeds))
        return images

    def explain(
        self, image: EncodedImage, prompt_ids: Sequence[int], text_ids: Sequence[int], words: bool = False
    ) -> Explanation | Failed:
        """Where the model looked for a text that it wrote, and for each of its words.

        What maps explain is the sum of the logits of the text's tokens. The logarithms of
        their probabilities have next to no slope where the model is certain.

        Args:
            image: encoded with `encode_to_explain`.
            prompt_ids: as in the Request.
            text_ids: the tokens that were written, at least one, without the end.
            words: whether each word is explained too.
        """

        def compute(texts: list[Sequence[int]]) -> list[Explanation]:
            with self.differentiating():
                return [self._explain(image, prompt_ids, text, words) for text in texts]

        explained: Explanation | Failed = self.batches.compute(compute, [text_ids])[0]
        return explained

    def _explain(
        self, image: EncodedImage, prompt_ids: Sequence[int], text_ids: Sequence[int], words: bool
    ) -> Explanation:
        assert image.image_embeds is not None, "an image that was encoded with `encode_to_explain`"
        image_embeds = image.image_embeds.clone()[None]  # tensors of inference mode have no gradients
        queries = self.model.query_tokens.clone().requires_grad_()
        with recorded_attention(self.model.qformer) as attentions:
            query_embeds = self.encoder.query_embeds_of(image_embeds, queries)
        decoder = self.family.decoder_class()
        logits = decoder.forced_logits(self.model.language_model, query_embeds, prompt_ids, text_ids)
        scores = logits.gather(1, torch.tensor(text_ids, device=logits.device)[:, None])[:, 0]
        found = words_of(text_ids, self.text) if words else []
        maps = [maps_of(scores[list(word.tokens)].sum(), attentions, keep=True) for word in found]
        whole = maps_of(scores.sum(), attentions)
        return Explanation.of(torch.cat([whole, *maps]), [word.text for word in found])

    def query_output(self, batch: Batch) -> list[torch.Tensor | Failed]:
        """Q-Former features of each image, fp32 [num_query_tokens, width] on the CPU.

        Equal to transformers' `Blip2Model.get_qformer_features`.
        """
        return self.begin_query_output(batch).wait()

    def begin_query_output(self, batch: Batch) -> PendingEncodings:
        """The same, without waiting for the device."""

        def forward(pixels: torch.Tensor) -> Tensors:
            return (self.encoder.query_output(self.encoder.vision(pixels)[0]).float(),)

        def encode(pixels: torch.Tensor) -> Iterable[torch.Tensor | PendingRow]:
            return self.to_host(self.run_on_images("qformer", forward, pixels)[0])

        return self.recent.begin("qformer", encode, batch)

    def vision_output(self, batch: Batch) -> list[torch.Tensor | Failed]:
        """Pooled vision features of each image, fp32 [width] on the CPU.

        Equal to the pooler output of transformers' `Blip2Model.get_image_features`.
        """
        return self.begin_vision_output(batch).wait()

    def begin_vision_output(self, batch: Batch) -> PendingEncodings:
        """The same, without waiting for the device."""

        def forward(pixels: torch.Tensor) -> Tensors:
            return (self.encoder.vision(pixels)[1].float(),)

        def encode(pixels: torch.Tensor) -> Iterable[torch.Tensor | PendingRow]:
            return self.to_host(self.run_on_images("vision", forward, pixels)[0])

        return self.recent.begin("vision", encode, batch)

    def generate(
        self, requests: Iterable[Request], settings: GenerationSettings, returned: int = 1
    ) -> Iterator[Completion]:
        """Texts for the requests, in the order in which they end; with beam search
        `returned` each, best first."""
        with self._decoder(settings, returned, SLOTS_PER_IMAGE * self.batch_size) as decoder:
            for completion in self._computed(decoder.decode(requests)):
                self.batch_size = min(self.batch_size, decoder.batch_size)
                yield completion

    def stream(self, request: Request, settings: GenerationSettings) -> Iterator[str]:
        """The text of one request in pieces, as it is written; together they are the
        `text` of its completion.

        With beam search, which decides at the end, there is one piece. The image's `uses`
        are not counted down, so that its prefix is kept if there are more than one.
        Raises the model's exceptions.
        """
        if settings.num_beams > 1:
            (completion,) = self.generate([request], settings)
            if completion.error:
                raise Blip2Error(str(completion.error))
            yield self.text(completion.token_ids)
            return
        pieces = Pieces(self.text, getattr(self.tokenizer, "clean_up_tokenization_spaces", False))
        with self._decoder(settings, returned=1, slots=1) as decoder:
            for token in self._computed(decoder.stream(request)):
                yield pieces.add(token)
        yield pieces.rest()

    def prompt_ids(self, prompt: str | None, room: int | None = None) -> tuple[int, ...]:
        """Token ids of a prompt, as the processor gives them; without a prompt, the start
        token, as in `generate`.

        Special tokens in the prompt are text. Raises TooLong for more than `room` tokens,
        and TokenizerFailed.
        """
        start = self.model.config.text_config.bos_token_id
        if prompt is None and start is not None:
            return (int(start),)
        text = (prompt or "").encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is not text
        if room is not None and len(text) > room * LONGEST_TOKEN:
            raise TooLong(f"{len(text)} characters, {room} tokens fit")
        ids = token_ids(self.tokenizer, text)
        if room is not None and len(ids) > room:
            raise TooLong(f"{len(ids)} tokens, {room} fit")
        return ids

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as it would follow a prompt, without the end."""
        shown = self.family.answer.format(text)
        return token_ids(self.tokenizer, shown, add_special_tokens=False)

    def prompt_room(self, max_new_tokens: int) -> int:
        """The most tokens of a prompt that leave room for an answer."""
        return self.family.room(self.model.config.text_config, self.num_query_tokens + max_new_tokens)

    def text_output(self, text: str) -> torch.Tensor | Failed:
        """Text features fp32 [tokens, width]: the hidden states of
        `Blip2Model.get_text_features`. Raises TooLong."""
        encoder = self.model.language_model.get_submodule(self.family.text_encoder)

        def encode(prompts: list[tuple[int, ...]]) -> torch.Tensor:
            ids = torch.tensor(prompts, device=self.encoder.device)
            hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            return hidden.float().cpu()

        prompt_ids = self.prompt_ids(text, self.prompt_room(0))
        with self.computing():
            encoded: torch.Tensor | Failed = self.batches.compute(encode, [prompt_ids])[0]
        return encoded

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a text: those of the language model's generation config and of
        the checkpoint's."""
        configs = (self.model.language_model.generation_config, getattr(self.model, "generation_config", None))
        end_ids: dict[int, None] = {}  # in order, without repetitions
        for config in configs:
            ends = getattr(config, "eos_token_id", None)
            if ends is not None:
                end_ids.update(dict.fromkeys(map(int, ends if isinstance(ends, list) else [ends])))
        return tuple(end_ids)

    def _computed(self, items: Iterator[T]) -> Iterator[T]:
        """The items, each computed in inference mode, which must not stay on while an
        item is yielded."""
        return taken_within(self.computing, items)

    @contextmanager
    def _decoder(self, settings: GenerationSettings, returned: int, slots: int) -> Iterator[Decoder]:
        """A decoder for one caller at a time; the last one with recorded functions is
        kept for the next call."""
        key = (settings, returned, slots)
        decoder = self._idle.pop(key, None)
        self._idle.clear()
        if decoder is None:
            runner = runner_for(self.checkpoint.devices)
            make = self.family.decoder_class()
            language_model = make(self.model.language_model, runner, self.model.config.image_token_index)
            beams = settings.num_beams > 1
            search = BeamSearch(settings, self.end_ids, returned) if beams else Sampler(settings, self.end_ids)
            decoder = Decoder(language_model, search, slots)
        try:
            yield decoder
        finally:
            if decoder.fixed:
                self._idle = {key: decoder}
