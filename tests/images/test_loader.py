"""The loader goes on whatever happens to its processes: every row once, in order, with its own pixels."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from blip2cli.errors import Blip2Error
from blip2cli.images import loader
from blip2cli.images.decode import FAILED, PIXELS, REPEATED, Reading
from blip2cli.images.loader import BatchSizes, Loader, Loading, load
from blip2cli.images.ready import ReadyProcesses
from blip2cli.records import Batch, ImageRef, Row, RowError
from tests.images.misbehaving import (
    Later,
    Misbehaving,
    Once,
    Unborn,
    WhileSending,
    crash,
    die,
    fail,
    fork_a_child_that_lives_on,
    hang,
    leave,
    stop,
    trickle,
)

READING = Reading(8)
LARGE = Reading(300)
"""Pixels that fit in no socket's buffer at once."""

NO_IMAGE = "unsupported: not an image in a known format"

Install = Callable[..., None]


def rows(count: int) -> Iterator[Row]:
    for number in range(count):
        yield Row(number, f"{number}.png", ImageRef(data=f"image {number}".encode()))


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let images of some numbers do something before they are decoded."""

    def install(acts: dict[int, Callable[[], object]], work: type[Misbehaving] = Misbehaving, **more: object) -> None:
        monkeypatch.setattr(loader, "DecodeImages", partial(work, acts=acts, **more))

    return install


def errors_of(batches: Iterator[Batch], count: int) -> dict[int, str]:
    """Check that every row comes once, in order, with its own pixels; gives the errors by number."""
    errors: dict[int, str] = {}
    numbers = []
    for batch in batches:
        for row, at, error in zip(batch.rows, batch.image_of, batch.errors, strict=True):
            numbers.append(row.index)
            if error is None:
                assert at is not None
                assert (batch.pixels[at] == row.index % 251).all()
            else:
                errors[row.index] = str(error)
                assert at is None
    assert numbers == list(range(count))
    return errors


def test_an_image_that_kills_its_process_is_an_error_row_and_the_run_goes_on(misbehave: Install) -> None:
    misbehave({5: die, 6: die, 23: crash, 30: leave})
    assert errors_of(load(rows(40), READING, 4, Loading(2)), 40) == {
        5: "crashed: the image decoder crashed (SIGKILL)",
        6: "crashed: the image decoder crashed (SIGKILL)",
        23: "crashed: the image decoder crashed (SIGSEGV)",
        30: "crashed: the image decoder ended (exit code 1)",
    }


@pytest.mark.parametrize("act", [hang, stop, trickle])
def test_an_image_that_hangs_or_stops_its_process_is_given_up(misbehave: Install, act: Callable[[], object]) -> None:
    misbehave({7: act})
    errors = errors_of(load(rows(24), READING, 4, Loading(2, image_timeout=0.5)), 24)
    assert errors == {7: "timeout: took longer than 0.5 s"}


POINTS = {
    "while decoding": lambda act, marker: Once(act, marker),
    "before the answer": lambda act, marker: WhileSending(act, marker, 0, 0),
    "within its length": lambda act, marker: WhileSending(act, marker, 0, 0.5),
    "before the pixels": lambda act, marker: WhileSending(act, marker, 1, 0),
    "within the pixels": lambda act, marker: WhileSending(act, marker, 1, 0.5),
    "after the pixels": lambda act, marker: WhileSending(act, marker, 1, 1),
    "within the next": lambda act, marker: WhileSending(act, marker, 3, 0.5),
    "a little later": lambda act, marker: Later(act, marker, 0.02),
}


@pytest.mark.parametrize(
    ("point", "act"),
    [
        *((point, die) for point in POINTS),
        ("within the pixels", crash),
        ("within the pixels", leave),
        ("within its length", stop),
        ("within the pixels", stop),
    ],
)
def test_a_process_lost_at_any_point_of_handing_over_costs_no_image(
    misbehave: Install, tmp_path: Path, point: str, act: Callable[[], object]
) -> None:
    misbehave({6: POINTS[point](act, tmp_path / "done")})
    started = time.monotonic()
    assert errors_of(load(rows(20), LARGE, 4, Loading(2, image_timeout=1)), 20) == {}
    assert (tmp_path / "done").exists() and time.monotonic() - started < 10


def test_a_process_that_leaves_a_child_with_its_descriptors_is_given_up(misbehave: Install, tmp_path: Path) -> None:
    misbehave({6: Once(fork_a_child_that_lives_on, tmp_path / "done")})
    started = time.monotonic()
    assert errors_of(load(rows(20), READING, 4, Loading(2, image_timeout=1)), 20) == {}
    assert time.monotonic() - started < 5


def test_processes_that_die_of_no_image_become_fewer(
    misbehave: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    misbehave({6: Once(die, tmp_path / "1"), 30: Once(die, tmp_path / "2")})
    assert errors_of(load(rows(40), READING, 4, Loading(4)), 40) == {}
    told = capsys.readouterr().err.splitlines()
    lost = "blip2: warning: a process that decodes images died (crashed: the image decoder crashed (SIGKILL)); "
    assert told == [f"{lost}continuing with {number}" for number in (2, 1)]


def test_a_process_that_does_not_start_is_started_again(misbehave: Install, tmp_path: Path) -> None:
    misbehave({}, Unborn, marker=tmp_path / "born", deaths=2)
    assert errors_of(load(rows(20), READING, 4, Loading(1)), 20) == {}


def test_when_none_starts_the_run_ends_or_decodes_here(
    misbehave: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blip2cli.images.processes.process.START_PAUSE", 0)
    misbehave({}, Unborn, marker=tmp_path / "born", deaths=100)
    with pytest.raises(Blip2Error, match=r"cannot start a process that decodes images: .*SIGKILL"):
        list(load(rows(20), READING, 4, Loading(1)))
    assert errors_of(load(rows(20), READING, 4), 20) == {}
    assert "this process decodes them, without time limits" in capsys.readouterr().err


@pytest.mark.parametrize("ready", [False, True])
def test_images_are_decoded_before_it_is_known_how_many_a_batch_takes(ready: bool) -> None:
    processes = ReadyProcesses()
    if ready:
        processes.start(READING, 2, 60.0)
    with closing(Loader(rows(40), READING, Loading(2), processes)) as loading:
        loading.start()
        assert loading.workload is not None and loading.workload.pool is not None
        jobs = list(loading.workload.pool.order)
        deadline = time.monotonic() + 60
        while not all(job.finished for job in jobs) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(len(job.results) for job in jobs) == 40
        batches = list(loading.batches(BatchSizes(24, 3)))
    assert [len(batch.rows) for batch in batches] == [3, 6, 12, 19]
    assert errors_of(iter(batches), 40) == dict.fromkeys(range(40), NO_IMAGE)


def test_processes_that_are_ready_for_other_pixels_are_not_used() -> None:
    processes = ReadyProcesses()
    processes.start(LARGE, 1, 60.0)
    other = processes.pool
    with closing(Loader(rows(20), READING, Loading(1), processes)) as loading:
        assert {batch.pixels.shape[1] for batch in loading.batches(BatchSizes(20))} == {8}
    assert other is not None and other.closed.is_set() and processes.pool is None


def test_rows_are_not_read_early_where_that_may_take_long() -> None:
    def waiting() -> Iterator[Row]:
        raise AssertionError("a row was read")
        yield

    for workers in (None, 0, 1):
        with closing(Loader(waiting(), READING, Loading(workers))) as loading:
            loading.start(read=False)


def test_the_same_bytes_in_several_batches_have_their_pixels_in_each() -> None:
    data = (Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png").read_bytes()
    same = [Row(number, "same.png", ImageRef(data=data)) for number in range(30)]
    for workers in (0, 1):
        for batch in load(same, READING, 5, Loading(workers)):
            assert len(batch.pixels) == 1 and batch.image_of == (0,) * 5 and batch.errors == (None,) * 5


def test_what_goes_wrong_in_the_source_is_not_taken_for_a_process() -> None:
    def broken() -> Iterator[Row]:
        yield from rows(20)
        raise RuntimeError("the manifest is broken")

    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="the manifest is broken"):
            list(load(broken(), READING, 4, Loading(workers)))


def test_an_error_of_python_costs_one_image(misbehave: Install) -> None:
    misbehave({9: fail})
    assert errors_of(load(rows(24), READING, 4, Loading(2)), 24) == {9: "unreadable: MemoryError"}


def test_the_same_bytes_in_a_batch_are_there_once() -> None:
    data = (Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png").read_bytes()
    same = [Row(number, "same.png", ImageRef(data=data)) for number in range(4)]
    bad = [Row(number, "bad.png", ImageRef(data=b"bad")) for number in (4, 5)]
    gone = Row(6, "", error=RowError("missing", "gone"))
    for workers in (0, 1):
        (batch,) = load(iter([*same, *bad, gone]), READING, 8, Loading(workers))
        assert len(batch.pixels) == 1 and batch.image_of == (0, 0, 0, 0, None, None, None)
        assert batch.errors[4] == batch.errors[5] == RowError("unsupported", "not an image in a known format")
        assert batch.errors[6] == gone.error


@pytest.mark.parametrize(
    "answer", [b"?", PIXELS, PIXELS + bytes(16) + b"few", REPEATED + b"x" * 16, PIXELS + bytes(1000)]
)
def test_what_no_sound_process_would_say_is_an_error_row(answer: bytes) -> None:
    batch = loader._batch([(Row(0, "a.png", ImageRef(data=b"")), answer)], READING.side, False)
    assert batch.errors == (loader.NO_ANSWER,) and not len(batch.pixels)
    text = loader._batch([(Row(0, "a.png", ImageRef(data=b"")), FAILED + b"\xff\x1b")], READING.side, False)
    assert text.errors[0] is not None


LIMITED = """
import resource, sys
from blip2cli.images import loader
from blip2cli.images.decode import Reading
from blip2cli.records import ImageRef, Row
data = open(sys.argv[1], "rb").read()
rows = [Row(number, "", ImageRef(data=data + bytes([number % 250]))) for number in range(60)]
batches = loader.load(iter(rows), Reading(300), 4, loader.Loading(2))
count = len(next(batches).rows)
resource.setrlimit(getattr(resource, sys.argv[2]), (int(sys.argv[3]),) * 2)
for batch in batches:
    assert batch.errors == (None,) * len(batch.rows), batch.errors
    count += len(batch.rows)
print(count)
"""


@pytest.mark.parametrize(("limit", "value"), [("RLIMIT_FSIZE", 1000), ("RLIMIT_FSIZE", 0), ("RLIMIT_NOFILE", 3)])
def test_no_limit_on_files_stops_pixels_from_being_handed_over(limit: str, value: int) -> None:
    picture = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
    words = [sys.executable, "-c", LIMITED, str(picture), limit, str(value)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (ran.stdout, ran.returncode) == ("60\n", 0), ran.stderr


def test_without_descriptors_processes_are_said_not_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr("blip2cli.images.processes.process.START_PAUSE", 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(Blip2Error, match=r"that decodes images: Too many open files"):
            list(load(rows(20), READING, 4, Loading(2)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("options", ["size=300k", "size=300k,ro"])
def test_a_small_shared_memory_is_no_matter(tmp_path: Path, options: str) -> None:
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this user may not mount anything")
    picture = Path(__file__).parents[2] / "docs" / "examples" / "red-circle.png"
    inner = f'{mount} && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", inner, "sh", sys.executable, "-c", LIMITED, picture, "RLIMIT_CORE", "0"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (ran.stdout, ran.returncode) == ("60\n", 0), ran.stderr


def test_nothing_heavy_is_in_a_process_that_decodes() -> None:
    heavy = "torch", "transformers", "pyarrow"
    script = f"import sys, blip2cli.images.processes.worker; print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_the_signal_handler_of_the_caller_stays() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    list(load(rows(20), READING, 4, Loading(1)))
    assert signal.getsignal(signal.SIGCHLD) is before


MIB = 1 << 20


def large_rows(count: int, pulled: list[int]) -> Iterator[Row]:
    """Rows that hold a MiB each, which are counted when they are taken."""
    for number in range(count):
        pulled.append(number)
        yield Row(number, f"{number}.png", ImageRef(data=bytes([number]) * MIB), {"text": "x"})


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_that_hold_much_come_in_small_batches_and_are_not_read_far_ahead(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "BATCH_BYTES", 2 * MIB)
    monkeypatch.setattr(loader, "BYTES_AHEAD", 5 * MIB)
    pulled: list[int] = []
    taken = 0
    for batch in load(large_rows(40, pulled), READING, 16, Loading(workers, keep_bytes=False)):
        assert len(batch.rows) <= 2 and len(pulled) - taken <= 6 + 2 * (workers == 0)
        assert all(row.image is None for row in batch.rows)
        taken += len(batch.rows)
    assert taken == 40


def test_bytes_are_kept_for_those_who_copy_them_save_of_bad_images() -> None:
    image = BytesIO()
    Image.new("RGB", (4, 4)).save(image, "PNG")
    good, bad = (Row(number, "", ImageRef(data=data)) for number, data in enumerate((image.getvalue(), b"no")))
    (batch,) = load([good, bad], READING, 4, Loading(workers=0))
    assert batch.rows == (good, Row(1, ""))


def test_an_image_larger_than_all_that_is_read_ahead_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "BATCH_BYTES", 1)
    monkeypatch.setattr(loader, "BYTES_AHEAD", 1)
    sizes = [len(batch.rows) for batch in load(large_rows(5, []), READING, 16, Loading(workers=1))]
    assert sizes == [1] * 5
