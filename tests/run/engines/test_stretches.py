"""The cutting of the input into stretches, and the account of those that are done."""

from hypothesis import given
from hypothesis import strategies as st

from blip2cli.outputs.commits import Commit
from blip2cli.run.engines.ray import _count
from blip2cli.run.engines.ray_replica import ShardProgress
from blip2cli.run.engines.stretches import Stretches
from blip2cli.run.summary import Tally


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


def test_the_seconds_of_every_phase_of_a_shard_are_added() -> None:
    tally = Tally(Commit())
    for number in range(2):
        _count(tally, ShardProgress(number, finished=True, seconds={"decoding": 1.0, "ranking": 2.0}), Stretches(2, 1))
    assert tally.images == 2 and (tally.watch.seconds["decoding"], tally.watch.seconds["ranking"]) == (2.0, 4.0)
