"""Recent images, which are kept encoded in case the same bytes come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from blip2cli.model.batches import Batches, Failed
from blip2cli.model.graphs import PendingRow
from blip2cli.records import Batch, RowError

NOT_FINITE = RowError("failed", "the model gave values that are not finite: check its weights and --dtype")


Key = tuple[str, bytes]
"""What was computed, and an image's digest."""


class RecentImages:
    """Encodings by the images' digests, at most `most`; others are computed in `batches`."""

    def __init__(self, batches: Batches, most: int) -> None:
        self.batches = batches
        self.most = most
        self._kept: OrderedDict[Key, Any] = OrderedDict()

    def encoded(self, kind: str, encode: Callable[[torch.Tensor], Iterable[Any]], batch: Batch) -> list[Any | Failed]:
        """The encoding of each image of the batch, computed now or kept from earlier.

        Args:
            kind: names what `encode` computes.
            encode: a function of pixels. For each image it returns an object with a
                method `clone`: a view would keep its whole batch in memory.
            batch: the rows and their pixels.
        """
        return self.begin(kind, encode, batch).wait()

    @torch.inference_mode()
    def begin(self, kind: str, encode: Callable[[torch.Tensor], Iterable[Any]], batch: Batch) -> PendingEncodings:
        """The same, without waiting for the device if `encode` returns PendingRows."""
        keys = [(kind, digest) for digest in batch.digests]
        encodings = {key: self._kept[key] for key in keys if key in self._kept}
        new = [at for at, key in enumerate(keys) if key not in encodings]
        if new:
            whole = len(new) == len(keys)
            pixels = batch.pixels if whole else batch.pixels[new]
            computed = self.batches.compute(encode, pixels, whole)
            encodings.update(zip([keys[at] for at in new], computed, strict=True))
        return PendingEncodings(self, keys, encodings)

    def copied(self, key: Key, encoded: Any) -> Any:
        """A copy to keep, unless it is kept already."""
        return encoded if self._kept.get(key) is encoded else encoded.clone()

    def keep(self, encodings: Mapping[Key, Any]) -> None:
        """Keep these for later batches, and forget the oldest if there are too many."""
        for key, encoded in encodings.items():
            self._kept[key] = encoded
            self._kept.move_to_end(key)
        while len(self._kept) > max(self.most, len(encodings)):
            self._kept.popitem(last=False)

    def forget(self) -> None:
        """Forget all of them."""
        self._kept.clear()


@dataclass(frozen=True)
class PendingEncodings:
    """The encodings of a batch's images, some of which the device may still be computing.

    Args:
        recent: where they are kept.
        keys: of the batch's images.
        encodings: what there is for each key: an encoding that was kept, a new one, one
            that is on its way (PendingRow), or Failed.
    """

    recent: RecentImages
    keys: list[Key]
    encodings: dict[Key, Any]

    @torch.inference_mode()
    def wait(self) -> list[Any | Failed]:
        """The encoding of each image, or Failed."""
        good = {}
        for key, encoded in self.encodings.items():
            arrived = encoded.wait() if isinstance(encoded, PendingRow) else encoded
            if isinstance(arrived, Failed):
                continue
            if is_not_finite(arrived):
                self.encodings[key] = Failed(NOT_FINITE)
            else:
                good[key] = self.encodings[key] = self.recent.copied(key, arrived)
        self.recent.keep(good)
        return [self.encodings[key] for key in self.keys]


def is_not_finite(encoded: Any) -> bool:
    """Whether features on the CPU have NaN or infinity.

    On other devices, to look would be to wait.
    """
    if not isinstance(encoded, torch.Tensor) or encoded.device.type != "cpu":
        return False
    return not bool(torch.isfinite(encoded).all())
