"""Processes that may die of an item."""

import os
import signal
import time

from blip2cli.worker import mapped


def doubled(item: int) -> int:
    if item == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 50:
        time.sleep(60)
    return 2 * item


def test_results_come_in_order_and_items_that_a_process_dies_of_or_hangs_in_cost_themselves_only() -> None:
    results = list(mapped(doubled, range(70), 2, 2.0, lambda item: -item))
    assert results == [-item if item in (13, 50) else 2 * item for item in range(70)]


def test_without_processes_the_work_is_done_here_as_it_is_asked_for() -> None:
    taken = []
    results = mapped(doubled, (taken.append(item) or item for item in range(5)), 0, 1.0, lambda item: 0)  # type: ignore[func-returns-value]
    assert next(results) == 0 and len(taken) == 1


def test_nothing_is_left_running_when_the_rest_is_not_wanted() -> None:
    results = mapped(doubled, iter(range(10)), 2, 2.0, lambda item: 0)
    assert next(results) == 0
    results.close()
    assert next(results, None) is None
