"""`blip2 bench`: every precision is tried, and one that cannot run is a row that says why."""

from collections.abc import Callable

import pytest

from blip2cli.commands.bench.ours import Ours
from blip2cli.model import loaded
from blip2cli.model.checkpoint.record import Checkpoint
from tests.conftest import Typed

Run = Callable[..., Typed]
FEW = ("bench", "--images", 2, "--tokens", 2, "--batch-sizes", "1")


def refuse(precision: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a precision fail when it is loaded."""
    load_weights = loaded.load_weights

    def load(checkpoint: Checkpoint) -> object:
        if checkpoint.precision == precision:
            raise error
        return load_weights(checkpoint)

    monkeypatch.setattr(loaded, "load_weights", load)


def words_of(ran: Typed) -> str:
    return " ".join(ran.out.split())


@pytest.mark.int8
def test_a_precision_that_cannot_run_is_told_and_the_others_are_tried(
    typed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse("bf16", RuntimeError("the operator\nrefuses"), monkeypatch)
    ran = typed(*FEW, "--dtypes", "fp32,bf16,int8")
    assert ran.code == 0, ran.err
    assert "bf16 error: RuntimeError: the operator refuses int8 1" in words_of(ran)
    assert "Fastest: --dtype" in ran.out
    assert "Linear layers in int8: " in ran.out and " int8 " in ran.out.split("Linear layers in int8: ")[1]
    assert "Linear layers in bf16" not in ran.out


def test_where_none_can_run_it_is_two_lines(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse("bf16", RuntimeError("the operator refuses"), monkeypatch)
    ran = typed(*FEW, "--dtypes", "bf16")
    assert ran.code == 1 and "RuntimeError: the operator refuses" in words_of(ran)
    assert ran.err.splitlines()[-2:] == [
        "blip2: tiny cannot run here with any of bf16 here",
        "       Try --dtypes fp32.",
    ]


@pytest.mark.int8
def test_what_fails_in_the_middle_ends_that_precision_only(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Ours.write

    def fail_at_two(self: Ours, *given: object) -> int:
        if given[-1] == 2 and self.model.checkpoint.precision == "fp32":
            raise MemoryError
        return write(self, *given)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Ours, "write", fail_at_two)
    ran = typed(*FEW[:-1], "1,2", "--dtypes", "fp32,int8")
    assert ran.code == 0 and "MemoryError" in ran.out and "int8 1" in words_of(ran)
