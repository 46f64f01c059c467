"""Recent images, which are kept encoded in case the same bytes come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch

from blip2cli.model.batches import Batches, Failed
from blip2cli.records import Batch, RowError

NOT_FINITE = RowError("failed", "the model gave values that are not finite: check its weights and --dtype")


class RecentImages:
    """Encodings by the images' digests, at most `most`; others are computed in `batches`."""

    def __init__(self, batches: Batches, most: int) -> None:
        self.batches = batches
        self.most = most
        self._kept: OrderedDict[tuple[str, bytes], Any] = OrderedDict()

    @torch.inference_mode()
    def encoded(self, kind: str, encode: Callable[[torch.Tensor], Iterable[Any]], batch: Batch) -> list[Any | Failed]:
        """The encoding of each image of the batch, computed now or kept from earlier.

        Args:
            kind: names what `encode` computes.
            encode: a function of pixels. For each image it returns an object with a
                method `clone`: a view would keep its whole batch in memory.
            batch: the rows and their pixels.
        """
        keys = [(kind, digest) for digest in batch.digests]
        new = [at for at, key in enumerate(keys) if key not in self._kept]
        failed: dict[tuple[str, bytes], Failed] = {}
        if new:
            whole = len(new) == len(keys)
            pixels = batch.pixels if whole else batch.pixels[new]
            for at, encoded in zip(new, self.batches.compute(encode, pixels, whole), strict=True):
                if isinstance(encoded, Failed):
                    failed[keys[at]] = encoded
                elif _is_not_finite(encoded):
                    failed[keys[at]] = Failed(NOT_FINITE)
                else:
                    self._kept[keys[at]] = encoded.clone()
        images = [failed.get(key) or self._kept[key] for key in keys]
        for key in keys:
            if key not in failed:
                self._kept.move_to_end(key)
        while len(self._kept) > max(self.most, len(keys)):
            self._kept.popitem(last=False)
        return images

    def forget(self) -> None:
        """Forget all of them."""
        self._kept.clear()


def _is_not_finite(encoded: Any) -> bool:
    """Whether features on the CPU have NaN or infinity.

    On other devices, to look would be to wait.
    """
    if not isinstance(encoded, torch.Tensor) or encoded.device.type != "cpu":
        return False
    return not bool(torch.isfinite(encoded).all())
