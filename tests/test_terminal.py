"""What a person is shown on a terminal."""

import sys
from io import StringIO

import pytest

from blip2cli.terminal import Progress, show_warning


class Screen(StringIO):
    """A terminal that keeps all that is written to it."""

    def isatty(self) -> bool:
        return True


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
