"""What a person is shown on a terminal."""

import os
import re
import sys
from collections.abc import Iterator
from io import StringIO

import pytest

from blip2cli.host import stopwatch
from blip2cli.host.terminal import (
    Progress,
    TablePrinter,
    figure,
    loading,
    progress,
    remove_progress,
    show_error,
    show_plan,
    show_summary,
    show_warning,
    weights_counted,
)
from blip2cli.host.terminal.tables import shared
from blip2cli.host.terminal.text import GLUE, tail, width_of, wrapped

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Screen(StringIO):
    """A terminal that keeps all that is written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def last(self) -> str:
        """The line that was drawn last."""
        return self.getvalue().rpartition("\r")[2]


class Clock:
    """The seconds of a test, which it sets itself."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still; the command was started at its beginning."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(stopwatch, "time", clock)
    monkeypatch.setattr(progress, "DRAWN_EVERY", 3600.0)
    stopwatch.restart_clock()
    return clock


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return Screen()


@pytest.fixture
def shown(screen: Screen, time: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Progress]:
    """Progress on that terminal."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        shown = Progress(quiet=False)
    yield shown
    shown.close()


def test_a_model_that_is_loaded_is_named_at_once_with_the_seconds_since_the_start(
    shown: Progress, screen: Screen, time: Clock
) -> None:
    time.now += 4
    shown.load("tiny\x1b[31m")
    assert screen.last.rstrip() == "Loading tiny [31m, 0:04"


def test_what_may_take_long_is_named_on_a_terminal(
    screen: Screen, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    with loading("results", drawn_only=True):
        assert screen.last.strip() == "Loading results, 0:00"


def test_weights_are_counted_while_they_are_loaded(shown: Progress, screen: Screen) -> None:
    from transformers.utils import logging

    shown.load("tiny")
    with weights_counted():
        for number, _ in enumerate(logging.tqdm(["a", "b", "c", "d"], desc="Loading weights")):
            if number == 2:
                shown._draw()
    assert "Loading tiny  50% |" in screen.last and screen.last.endswith("| 2 of 4 weights, 0:00")
    with weights_counted():
        assert list(logging.tqdm(iter("ab"))) == ["a", "b"], "whose number is not known"


def test_no_speed_is_shown_before_it_means_something(shown: Progress, screen: Screen, time: Clock) -> None:
    time.now += 14
    shown.begin(1000, 100)
    shown.advance(64, 0)
    time.now += progress.MEANINGFUL - 1
    shown.advance(64, 2)
    shown._draw()
    assert screen.last.endswith("| 228 of 1,000 images, 0:16, 2 errors")
    time.now += 1
    shown._draw()
    assert screen.last.endswith("| 228 of 1,000 images, 0:17, 21.3 images/s, 2 errors, 0:36 left")
    time.now += 3
    shown._draw()
    assert screen.last.endswith(", 10.7 images/s, 2 errors, 1:12 left"), "while nothing comes"


def test_rows_that_are_skipped_say_nothing_of_the_speed(shown: Progress, screen: Screen, time: Clock) -> None:
    shown.skip(500)
    shown.begin(1000, 0)
    shown.skip(100)
    shown.advance(1, 0)
    time.now += 10
    shown.skip(300)
    shown.advance(10, 0)
    shown._draw()
    assert screen.last.endswith("| 911 of 1,000 images, 0:10, 1 images/s, 0 errors, 1:29 left")


def test_the_speed_is_that_of_the_last_minute(shown: Progress, screen: Screen, time: Clock) -> None:
    shown.begin(None, 0)
    for rate in (10, 40):
        for _ in range(100):
            time.now += 1
            shown.advance(rate, 0)
    shown._draw()
    assert screen.last.rstrip() == "5,000 images, 3:20, 40 images/s, 0 errors"


def test_elsewhere_there_is_a_line_for_loading_and_one_now_and_then(
    monkeypatch: pytest.MonkeyPatch, time: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for quiet in (True, False):
        shown = Progress(quiet)
        shown.load("tiny")
        shown.begin(10, 0)
        shown.advance(1, 0)
        time.now += progress.PLAIN_EVERY
        shown.advance(4, 1)
        shown.close()
    assert capsys.readouterr().err == "Loading tiny\n5 of 10 images, 0:20, 0.4 images/s, 1 error, 0:12 left\n"


def test_nothing_is_redrawn_where_rows_go_into_a_pipe(
    monkeypatch: pytest.MonkeyPatch, screen: Screen, time: Clock
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    read, write = os.pipe()
    with open(read, "rb"), open(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        shown = Progress(quiet=False, rows_to_stdout=True)
        shown.load("tiny")
        shown.begin(10, 0)
        shown.advance(1, 0)
        shown.close()
        with loading("results", drawn_only=True):
            pass
        assert screen.getvalue() == "Loading tiny\n"
        to_a_file = Progress(quiet=False)
        to_a_file.load("tiny")
        to_a_file.close()
    assert "\r" in screen.getvalue()


def test_a_warning_has_a_line_of_its_own_above_the_progress(
    shown: Progress, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    shown.begin(10, 0)
    shown.advance(3, 0)
    shown._draw()
    show_warning("look")
    above, _, below = screen.getvalue().partition("blip2: warning: look\n")
    assert above.endswith("\r") and "10" in above and "10" in below
    remove_progress()  # as where a process ends at once
    show_warning("gone")
    assert screen.getvalue().endswith("\rblip2: warning: gone\n")


def test_messages_are_wrapped_between_words_and_what_is_to_be_typed_is_not(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    show_error("word " * 20 + "end", "type: " + "word " * 20 + "end")
    message, more, hint, *_ = screen.getvalue().splitlines()
    assert len(message) <= 80 and message.startswith("blip2: word word") and more.startswith("  word")
    assert hint.startswith("       type: word") and hint.endswith("word end")


def test_a_plan_is_wrapped_beside_its_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Screen()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "30")
    show_plan([("input", "a"), ("columns", "one, two, three, four, five")])
    assert terminal.getvalue() == "input    a\ncolumns  one, two, three,\n         four, five\n"


def table(monkeypatch: pytest.MonkeyPatch, columns: int, *groups: list) -> list[str]:
    """The lines of a table on a terminal."""
    terminal = Screen()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    printer = TablePrinter(["image", "caption", "logprob"], ["logprob"])
    for group in groups:
        printer.print_rows(group)
    return [line.rstrip() for line in ESCAPES.sub("", terminal.getvalue()).splitlines()]


def test_columns_are_as_wide_as_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list = [(["a.png", "a cat", "-0.0123"], None), (["b.png", "", ""], "truncated: at 300 bytes")]
    later: list = [(["a-longer-name.png", "a dog on a sofa", "-1.5"], None)]
    assert table(monkeypatch, 80, rows, later) == [
        "image  caption    logprob",
        "a.png  a cat      -0.0123",
        "b.png  error: truncated: at 300 bytes",
        "a-longer-name.png  a dog on a sofa       -1.5",
    ]


def test_words_are_wrapped_whole_and_long_names_are_cut_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a photograph of two people who are walking along a beach"
    rows: list = [(["holiday/" * 5 + "photo.png", text, "-0.5"], None)]
    lines = table(monkeypatch, 50, rows)
    assert all(len(line) <= 50 for line in lines)
    assert lines[1].startswith("…") and "photo.png  a photograph" in lines[1]
    words = " ".join(line[lines[0].index("caption") :].replace("-0.5", "") for line in lines[1:]).split()
    assert words == text.split()


def test_letters_that_take_two_columns_count_as_two(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list = [(["猫の写真.png", "猫", "-0.5"], None), (["a.png", "🐈 cat", "-0.25"], None)]
    lines = table(monkeypatch, 80, rows)
    assert {width_of(line) for line in lines} == {width_of(lines[0])}
    assert tail("写真/猫の写真.png", 9) == "…写真.png" and width_of(tail("x猫の写真.png", 10)) <= 10


def test_the_widest_texts_share_what_the_others_leave() -> None:
    assert shared([20, 10, 9], [False, False, True], 80) == [20, 10, 9]
    assert shared([90, 10, 70, 9], [False, False, False, True], 77) == [25, 10, 25, 9]
    assert shared([90, 90], [False, False], 10) == [8, 8]


def test_numbers_have_three_digits() -> None:
    assert [figure(number) for number in (0.99812, -0.000135677, 27.44, 574.4, 12345.6, 1.0)] == [
        "0.998", "-0.000136", "27.4", "574", "12,346", "1"
    ]  # fmt: skip


def test_lines_are_broken_between_words() -> None:
    assert wrapped("  one two three", 9, 4) == ["  one two", "    three"]
    assert wrapped("see averylongword and", 8, 2) == ["see averylongword", "  and"]
    assert wrapped(f"  one two{GLUE}six", 11, 4) == ["  one", "    two six"]


SUMMARY = {
    "rows": 9, "out": "c.jsonl", "resumed_at": 0, "already_there": 0, "errors_before": 0, "left_out": 0, "errors": 9,
    "seconds": 9.6, "images": 9, "images_per_second": 2.5,
    "phases": {"loading": 5.0, "waiting": 1.0, "encoding": 2.0, "decoding": 0.7},
    "errors_by_kind": {"unreadable": 5, "missing": 4},
    "error_reasons": {"unreadable": {"404 Not Found": 3, "timed out": 2}, "missing": {f"{n}.png": 1 for n in range(4)}},
}  # fmt: skip


def test_a_number_stays_with_its_word_in_a_closing_line(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    for columns in range(20, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        screen.truncate(0)
        show_summary(SUMMARY)
        lines = [line.strip() for line in screen.getvalue().splitlines()]
        assert not any(line.endswith(("decoding", "loading", "in", "2.5", "9.6")) for line in lines), lines
        assert GLUE not in screen.getvalue() and "decoding 0.7" in screen.getvalue()


def test_the_reasons_of_errors_are_counted(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    show_summary(SUMMARY)
    assert screen.getvalue().splitlines()[-2:] == [
        "  5 unreadable: 3 times 404 Not Found; 2 times timed out",
        "  4 missing: for example 0.png",
    ]
