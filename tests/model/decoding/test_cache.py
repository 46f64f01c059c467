"""Sequences in a cache are copied whole, however that is done, and what is left of others harms nobody."""

from collections.abc import Callable

import pytest
import torch

from blip2cli.model.decoding.cache import SlotCache

CPU = torch.device("cpu")
LAYERS, SLOTS = 3, 6


@pytest.fixture
def cache() -> SlotCache:
    cache = SlotCache([CPU] * LAYERS, SLOTS, heads=2, width=4, like=torch.empty(0))
    cache.clear(torch.arange(SLOTS))
    cache.reserve(20)
    torch.manual_seed(0)
    cache.blocks[0].normal_()
    cache.lengths.copy_(torch.arange(SLOTS))
    return cache


def one_by_one(cache: SlotCache, sources: list[int], targets: list[int], columns: slice) -> None:
    cache._copy_one_by_one(sources, targets, columns)


def together(cache: SlotCache, sources: list[int], targets: list[int], columns: slice) -> None:
    as_slots = [torch.tensor(slots, dtype=torch.long) for slots in (sources, targets)]
    cache._copy_together(*as_slots, columns)


@pytest.mark.parametrize("copy", [one_by_one, together])
@pytest.mark.parametrize(
    ("sources", "targets"),
    [([5], [1]), ([4, 5], [0, 2]), ([1, 0, 0], [0, 1, 2]), ([2, 2, 0], [0, 1, 2]), ([3], [3]), ([], [])],
)
def test_slots_are_read_before_any_is_written(
    cache: SlotCache, copy: Callable[..., None], sources: list[int], targets: list[int]
) -> None:
    before = cache.blocks[0].clone()
    copy(cache, sources, targets, slice(5, 12))
    for slot in range(SLOTS):
        source = sources[targets.index(slot)] if slot in targets else slot
        assert torch.equal(cache.blocks[0][:, :, slot, :, 5:12], before[:, :, source, :, 5:12])
    assert torch.equal(cache.blocks[0][..., :5, :], before[..., :5, :])
    assert torch.equal(cache.blocks[0][..., 12:, :], before[..., 12:, :])


def test_lengths_go_with_the_sequences(cache: SlotCache) -> None:
    cache.copy(torch.tensor([5, 1]), torch.tensor([1, 0]))
    assert cache.lengths.tolist() == [1, 5, 2, 3, 4, 5]


@pytest.mark.parametrize("slots", [[1], [1, 2, 3], [0, 2, 4], [4, 0], [0, 1, 3], [2, 2]])
def test_slots_are_cleared_and_filled_in_any_order(cache: SlotCache, slots: list[int]) -> None:
    before, index = cache.blocks[0].clone(), torch.tensor(slots)
    cache.clear(index, 15)
    others = [slot for slot in range(SLOTS) if slot not in slots]
    assert not cache.blocks[0][:, :, slots, :, 15:].any()
    assert torch.equal(cache.blocks[0][:, :, others], before[:, :, others])
    keys = torch.randn(1, 2, 3, 4).expand(len(slots), -1, -1, -1)
    for layer, places in enumerate(cache.places(index)):
        cache.fill(layer, places, slice(2, 5), keys, -keys)
    assert torch.equal(cache.keys[1][slots, :, 2:5], keys) and torch.equal(cache.values[2][slots, :, 2:5], -keys)
    part = torch.randn(2, LAYERS, 2, 7, 4)
    cache.put(index, [[part]] * len(slots))
    assert all(torch.equal(cache.blocks[0][:, :, slot, :, :7], part) for slot in slots)


def test_a_cache_grows_with_or_without_what_is_in_it(cache: SlotCache) -> None:
    before, columns = cache.blocks[0].clone(), cache.columns
    cache.reserve(columns + 1)
    assert cache.columns == 64 and torch.equal(cache.blocks[0][..., :columns, :], before)
    assert not cache.blocks[0][..., columns:, :].any()
    cache.reserve(65, keep=False)
    assert cache.columns == 96 and not cache.blocks[0].any()


def test_slots_hold_nothing_until_they_are_begun() -> None:
    """What is in a slot's memory before does not matter: it may be NaN."""
    cache = SlotCache([CPU] * LAYERS, SLOTS, heads=2, width=4, like=torch.empty(0))
    cache.clear(torch.tensor([0, 1]))
    cache.reserve(20)
    assert not cache.blocks[0][:, :, :2].any()
    cache.blocks[0][:, :, 2:] = float("nan")
    cache.clear(torch.tensor([2]))
    cache.copy(torch.tensor([0]), torch.tensor([3]))
    cache.reserve(40)
    assert not cache.blocks[0][:, :, :4].any()
