"""Python does not search for garbage while libraries are imported."""

import gc

import pytest

from blip2cli.host.imports import without_collection
from blip2cli.model.checkpoint import find
from blip2cli.settings import ModelSettings


def test_collection_goes_on_after_the_outermost_block_and_after_a_failure() -> None:
    with pytest.raises(ValueError, match="a failure"), without_collection():
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ValueError("a failure")
    assert gc.isenabled()


def test_there_is_no_collection_while_a_checkpoint_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled, check_weights = [], find.check_weights
    monkeypatch.setattr(find, "check_weights", lambda *given: enabled.append(gc.isenabled()) or check_weights(*given))
    find.find_checkpoint(ModelSettings(model="tiny", device="cpu"))
    assert enabled == [False] and gc.isenabled()
