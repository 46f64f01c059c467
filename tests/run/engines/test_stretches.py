"""The cutting of the input into stretches, and the account of those that are done."""

from hypothesis import given
from hypothesis import strategies as st

from blip2cli.run.engines.stretches import Stretches


@given(st.integers(0, 200), st.integers(1, 30))
def test_stretches_cover_every_row_once(rows: int, size: int) -> None:
    stretches = Stretches(rows, size)
    covered = [row for number in range(len(stretches)) for row in range(*stretches.bounds(number))]
    assert covered == list(range(rows))


@given(st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_what_is_left_is_what_is_not_done(many: int, done: set[int]) -> None:
    stretches = Stretches(many, 1)
    done = {number for number in done if number < many}
    for number in sorted(done, key=lambda number: number * 7 % 11):
        stretches = stretches.with_done(number)
    assert list(stretches.finished()) == sorted(done)
    left = [number for number in range(many) if number not in done]
    assert [stretches.unfinished(place) for place in range(stretches.left)] == left


def test_runs_of_those_done_are_joined() -> None:
    stretches = Stretches(100, 10)
    for number in (3, 1, 2, 7, 0):
        stretches = stretches.with_done(number)
    assert stretches.done == ((0, 3), (7, 7))
