"""Processes that may die of an item, or be left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path

import pytest

from blip2cli.host.clock import TICK, Clock
from blip2cli.images.processes import Death, work_through
from blip2cli.images.processes.pool import Pool
from blip2cli.records import RowError


def doubled(items: Iterator[int]) -> Iterator[bytes]:
    for item in items:
        if item == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        if item >= 1000:
            time.sleep(60)
        yield str(2 * item).encode()


def process_numbers(items: Iterator[int]) -> Iterator[bytes]:
    for _ in items:
        time.sleep(0.05)
        yield str(os.getpid()).encode()


def flood(items: Iterator[int]) -> Iterator[bytes]:
    for _ in items:
        yield b"x" * (1 << 27)


def lists_of(numbers: range, at_once: int = 5) -> Iterator[range]:
    return (numbers[at : at + at_once] for at in range(0, len(numbers), at_once))


def test_results_come_in_order_and_an_item_that_a_process_dies_of_costs_itself_only() -> None:
    results = list(chain.from_iterable(work_through(doubled, lists_of(range(30)), 2, 5.0)))
    assert results[13] == Death(RowError("crashed", "the image decoder crashed (SIGSEGV)"))
    results[13] = b"26"
    assert results == [str(2 * number).encode() for number in range(30)]


def test_without_processes_the_work_is_done_here_as_it_is_asked_for() -> None:
    taken = []
    lists = (taken.append(item) or [item] for item in range(5))  # type: ignore[func-returns-value]
    results = work_through(doubled, lists, 0, 1.0)
    assert next(results) == [b"0"] and len(taken) == 1


def test_nothing_is_left_running_when_the_rest_is_not_wanted() -> None:
    others = set(children_of(os.getpid()))  # of tests before this one
    results = work_through(doubled, iter([[1], [1000], [1000]]), 2, 60.0)
    assert next(results) == [b"2"]
    children = set(children_of(os.getpid())) - others
    assert children
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 3
    assert not children & set(children_of(os.getpid()))


def test_lists_without_items_have_no_results() -> None:
    assert list(work_through(doubled, [[], [1], []], 1, 5.0)) == [[], [b"2"], []]


def test_an_item_that_cannot_be_sent_is_an_error_and_no_wait() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        list(work_through(doubled, [[threading.Lock()]], 1, 5.0))  # type: ignore[list-item]


def test_a_result_larger_than_any_thumbnail_is_not_taken() -> None:
    ((death,),) = work_through(flood, [[1]], 1, 5.0)
    assert isinstance(death, Death)


def test_an_idle_process_that_is_killed_is_replaced_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Pool(process_numbers, 1, 5.0)) as pool:
        pool.submit([1])
        (first,) = pool.take()
        assert isinstance(first, bytes)
        os.kill(int(first), signal.SIGKILL)
        time.sleep(0.1)
        pool.submit([1])
        (second,) = pool.take()
    assert second != first and capsys.readouterr().err == ""


RUN = """
import os, sys
from blip2cli.images.processes import work_through
from tests.images.test_image_processes import doubled
results = work_through(doubled, [[1], [1000], [1]], 2, 600.0)
print(next(results), flush=True)
next(results)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(number: int) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert run.stdout is not None
    with run.stdout:
        assert run.stdout.readline() == b"[b'2']\n"
        children = children_of(run.pid)
        run.send_signal(number)
        run.wait(10)
    deadline = time.monotonic() + 5
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(children) == 2 and not any(map(alive, children))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_signals_to_all_processes_are_the_parents_and_each_item_has_its_own_time() -> None:
    others = set(children_of(os.getpid()))  # of tests before this one
    with closing(Pool(process_numbers, 1, 0.6)) as pool:
        pool.submit(list(range(20)))
        while not (children := set(children_of(os.getpid())) - others):
            time.sleep(0.01)
        (child,) = children
        time.sleep(0.4)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child, number)
        results = pool.take()
    assert results == [str(child).encode()] * 20


def test_while_all_is_stopped_no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock()
    for now in (0.2, 0.4, 1000.0, 1000.2):  # noqa: B007  # what the clock reads
        passed = clock.seconds()
    assert passed == pytest.approx(0.2 + 0.2 + 2 * TICK + 0.2)


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return [child for child in found if alive(child)]


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
