"""How the best of several captions is counted."""

import pytest

from blip2cli.tiny.accuracy import Captioned
from blip2cli.tiny.ranking import Row, figures, table


def test_each_way_to_choose_counts_the_images_whose_caption_is_right() -> None:
    captioned = [
        Captioned(f"{number}.png", text, "") for number, text in enumerate(("a red circle", "a teal triangle"))
    ]
    greedy: list[Row] = [{"caption": "a red circle"}, {"caption": "a circle"}]
    runs: dict[str, list[Row]] = {
        "samples": [{"captions": ["a red circle", "a"]}, {"captions": ["a red circle", "a teal triangle"]}],
        "itm": [{"caption": "a red circle"}, {"caption": "a teal triangle"}],
        "itc": [{"caption": "a"}, {"caption": None}],
    }
    shares = figures(captioned, greedy, runs)
    assert shares == {"greedy": 0.5, "one sample": 0.5, "best by ITM": 1, "best by ITC": 0, "any of them": 1}
    assert table({1.5: shares}, 2).splitlines()[-1] == "| 1.5 | 50.0 % | 50.0 % | 100.0 % | 0.0 % | 100.0 % |"


def test_rows_of_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError):
        figures([Captioned("0.png", "a", "")], [], {"samples": [], "itm": [], "itc": []})
