"""Processes that may die of an item."""

import os
import signal
import time

from blip2cli.images.processes import mapped


def doubled(item: int) -> int | str:
    if item == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 50:
        time.sleep(60)
    return 2 * item


def died(item: int, cause: str) -> int | str:
    return cause


def test_results_come_in_order_and_items_that_a_process_dies_of_or_hangs_in_cost_themselves_only() -> None:
    results = list(mapped(doubled, range(70), 2, 1.0, died))
    assert results[13] == "crashed: the decoder died of it (SIGKILL)"
    assert results[50] == "timeout: took longer than 1 s"
    results[13], results[50] = 26, 100
    assert results == [2 * item for item in range(70)]


def test_without_processes_the_work_is_done_here_as_it_is_asked_for() -> None:
    taken = []
    results = mapped(doubled, (taken.append(item) or item for item in range(5)), 0, 1.0, died)  # type: ignore[func-returns-value]
    assert next(results) == 0 and len(taken) == 1


def test_nothing_is_left_running_when_the_rest_is_not_wanted() -> None:
    results = mapped(doubled, iter(range(100, 150)), 2, 60.0, died)
    assert next(results) == 200
    running = [process.running for process in results.gi_frame.f_locals["processes"]]
    assert [one.is_alive() for one in running] == [True, True]
    results.close()
    assert [one.is_alive() for one in running] == [False, False]
