"""What a person is shown on a terminal."""

import sys
from io import StringIO

import pytest

from blip2cli.host.terminal import Progress, show_warning


class Screen(StringIO):
    """A terminal that keeps all that is written to it."""

    def isatty(self) -> bool:
        return True


def test_the_first_images_are_shown_and_do_not_count_in_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = Progress(1000, 100, quiet=False)
    progress.advance(32, 0)
    assert "132/1000" in screen.getvalue()
    progress.advance(32, 0)
    told = progress.bar.format_dict
    assert (told["n"], told["initial"]) == (164, 132), "which the rate is made of"
    progress.close()


def test_a_warning_has_a_line_of_its_own_above_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = Progress(10, 0, quiet=False)
    progress.advance(3, 0)
    show_warning("look")
    above, _, below = screen.getvalue().partition("blip2: warning: look\n")
    assert above.endswith("\r") and "10" in above and "10" in below
    progress.close()
    show_warning("gone")
    assert screen.getvalue().endswith("\rblip2: warning: gone\n")
