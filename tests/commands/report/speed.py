"""How fast a page of many rows is: `python -m tests.commands.report.speed` makes one and uses it in headless Chromium.

The rows are questions with answers, scores and errors. By default every row has a photograph of its own; with
`--questions 3`, three rows one after the other are about the same photograph.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blip2cli.commands.bench.material import save_photos
from blip2cli.commands.report import write_report
from blip2cli.commands.report.options import ReportSettings
from blip2cli.records import ImageRef, Row
from tests.conftest import BROWSERS, FLAGS

WORDS = (
    "a the red small dog cat park sitting on bench with person umbrella street city green field cars tall water".split()
)
QUESTIONS = ("what is in the picture?", "how many people are there?", "is it day or night?")
PHOTOGRAPHS = 200
TIMES = 5

LOAD = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
CHANGE = """([id, value]) => {
    const control = document.getElementById(id), began = performance.now();
    control.value = value;
    control.dispatchEvent(new Event("input"));
    document.body.getBoundingClientRect();
    return performance.now() - began;
}"""
PRESS = """selector => {
    const button = document.querySelector(selector), began = performance.now();
    button.click();
    document.body.getBoundingClientRect();
    return performance.now() - began;
}"""
CARD = "() => performance.getEntriesByName('first card')[0]?.startTime ?? NaN"
SCROLL = """async () => {
    const frames = [];
    for (let at = 0, before = performance.now(); at < 200; at += 1) {
        scrollTo(0, at * 400);
        await new Promise(requestAnimationFrame);
        frames.push(performance.now() - before);
        before = performance.now();
    }
    return frames;
}"""


def rows_of(count: int, photographs: list[bytes], questions: int) -> Iterator[Row]:
    """Rows, so many one after the other about the same image; images differ in their last bytes at least."""
    rng = random.Random(0)
    for number in range(count):
        failed = number % 97 == 0
        image = number // questions
        few = [rng.choice(WORDS[:8])] if number % 3 == 2 else rng.choices(WORDS, k=rng.randint(4, 18))
        answer = None if failed else " ".join(few)
        columns = {
            "question": QUESTIONS[number % 3],
            "answer": answer,
            "logprob": None if failed else round(rng.gauss(-1, 0.4), 4),
            "error": "truncated: image file is truncated" if failed else None,
        }
        data = photographs[image % len(photographs)] + image.to_bytes(4, "little")
        yield Row(number, f"photos/{image:06}.jpg", ImageRef(data=data), columns)


def measure(browser: Any, page: Path) -> dict[str, float]:
    """Milliseconds of each thing that is done."""
    tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    tab.goto(page.as_uri(), wait_until="load")
    tab.wait_for_timeout(1500)  # until the event of loading has ended, and the search is prepared
    frames = tab.evaluate(SCROLL)
    found = {
        "first paint": tab.evaluate(PAINT),
        "first cards": tab.evaluate(CARD),
        "loaded": tab.evaluate(LOAD),
        "search, first letter": tab.evaluate(CHANGE, ["search", "d"]),
        "search, two words": tab.evaluate(CHANGE, ["search", "dog park"]),
        "search, emptied": tab.evaluate(CHANGE, ["search", ""]),
        "filter by an answer": tab.evaluate(PRESS, ".facet:nth-child(4) .label"),
        "another answer": tab.evaluate(PRESS, ".facet:nth-child(4) li:nth-child(2) .label"),
        "filter by an error": tab.evaluate(PRESS, ".facet:nth-child(1) .label"),
        "filters, undone": tab.evaluate(PRESS, "#reset"),
        "filter by question": tab.evaluate(CHANGE, ["question", "1"]),
        "filter by question, undone": tab.evaluate(CHANGE, ["question", ""]),
        "sort": tab.evaluate(CHANGE, ["sort", "number:logprob"]),
        "a frame while scrolling, median": statistics.median(frames),
        "a frame while scrolling, slowest of 20": statistics.quantiles(frames, n=20)[-1],
    }
    tab.context.close()
    return found


def main() -> None:
    """Make the page, and print what was measured: the median of several visits, and the slowest."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=1)
    options = parser.parse_args()
    count = options.rows
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        photographs = [path.read_bytes() for path in save_photos(folder / "photos", PHOTOGRAPHS, (640, 480)).iterdir()]
        began = time.monotonic()
        settings = ReportSettings(folder / "page.html", limit=count, quiet=True)
        written = write_report(rows_of(count, photographs, options.questions), settings, "speed", {})
        print(f"{count:,} rows: written in {time.monotonic() - began:.0f} s, {written.size / 1e6:.1f} MB")
        command = next(filter(None, map(shutil.which, BROWSERS)))
        browser = playwright.chromium.launch(executable_path=command, args=FLAGS)
        visits = [measure(browser, settings.out) for _ in range(TIMES)]
        for name in visits[0]:
            times = [visit[name] for visit in visits]
            print(f"{name:40} {statistics.median(times):6.0f} ms, at most {max(times):.0f}")
        browser.close()


if __name__ == "__main__":
    main()
