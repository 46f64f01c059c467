"""Fixtures: sample images, small random checkpoints of all kinds, the command line as a user types it, and a
headless browser.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader, BytesIO, TextIOWrapper
from multiprocessing import forkserver, get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blip2cli.__main__ import main as start_program
from blip2cli.cli import main
from blip2cli.host.processor import isa_limit, processor
from blip2cli.host.stopwatch import restart_clock
from blip2cli.model.checkpoint import packing
from blip2cli.model.checkpoint.int8 import available_kernels
from blip2cli.run.engines import replica_process
from blip2cli.tiny import MODEL_DIR
from tests.versions.kernels_absent import take_away

SIDE = 32
QUERIES = 4
ENDS = list(range(10, 60))  # so many that random texts end early, at different lengths
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
REQUIRED = "BLIP2_REQUIRE_BROWSER"
"""The variable that makes a missing browser a failure."""

INT8 = pytest.param("int8", marks=pytest.mark.int8)
"""This precision, as one of several that a test is run with."""

WITHOUT = take_away()
"""What this PyTorch is made to lack, before anything is tried."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked cuda or int8 are skipped, and said to be, where there is no such device or kernel."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if not available_kernels():
        for item in items:
            if item.get_closest_marker("int8"):
                item.add_marker(pytest.mark.skip(reason="needs an int8 kernel of PyTorch"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what the tests ran on: all that the processor has, or what the environment limits it to."""
    limit = f"limited to {isa_limit()}" if isa_limit() else "not limited"
    packed = "yes" if packing.is_available(torch.bfloat16) else "no"
    layers = f"bf16 packed: {packed}, int8: {' '.join(available_kernels()) or 'none'}"
    capability = torch.backends.cpu.get_cpu_capability()
    absent = f"; without {WITHOUT}" if WITHOUT else ""
    terminalreporter.write_line(f"processor: {processor()}; oneDNN {limit}, ATen {capability}; {layers}{absent}")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured of this machine is kept with the tests, not with the user."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BLIP2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve noisy images in several shapes, one level nested."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "nested").mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        size = (int(rng.integers(20, 90)), int(rng.integers(20, 90)), 3)
        image = Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))
        image.save(folder / ("nested" if number % 3 == 0 else ".") / f"{number:02}.{'png' if number % 2 else 'jpg'}")
    return folder


@pytest.fixture(scope="session")
def opt_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with an OPT language model."""
    from transformers import OPTConfig

    text = OPTConfig(
        vocab_size=437, hidden_size=32, num_hidden_layers=2, ffn_dim=64, num_attention_heads=4,
        max_position_embeddings=160, word_embed_proj_dim=32, dropout=0.0, bos_token_id=2, pad_token_id=1,
        eos_token_id=ENDS,
    )  # fmt: skip
    return save_checkpoint(tmp_path_factory.mktemp("opt"), text)


@pytest.fixture(scope="session")
def t5_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with a gated T5 language model."""
    from transformers import T5Config

    text = T5Config(
        vocab_size=437, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, bos_token_id=1,
        pad_token_id=0, eos_token_id=ENDS,
    )  # fmt: skip
    return save_checkpoint(tmp_path_factory.mktemp("t5"), text)


@pytest.fixture(scope="session")
def retrieval_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with retrieval heads."""
    from transformers import OPTConfig

    unused = OPTConfig(hidden_size=32, num_hidden_layers=2, ffn_dim=64, num_attention_heads=4, word_embed_proj_dim=32)
    return save_checkpoint(tmp_path_factory.mktemp("retrieval"), unused, "Blip2ForImageTextRetrieval")


Reference = Callable[[str, str, bool], Any]
"""Outputs of transformers for an image's path, a text and whether ITM is wanted."""


@pytest.fixture(scope="session")
def retrieval_reference(retrieval_checkpoint: Path) -> Reference:
    """What transformers computes with that checkpoint, for one image and one text."""
    from transformers import Blip2ForImageTextRetrieval, Blip2Processor

    model = Blip2ForImageTextRetrieval.from_pretrained(retrieval_checkpoint).eval()
    processor = Blip2Processor.from_pretrained(retrieval_checkpoint, backend="pil")

    def outputs(path: str, text: str, itm: bool) -> Any:
        inputs = processor(images=Image.open(path), text=text, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs, use_image_text_matching_head=itm)

    return outputs


def save_checkpoint(folder: Path, text_config: object, architecture: str = "Blip2ForConditionalGeneration") -> Path:
    """Save a random BLIP-2 whose outputs depend on the image, with the bundled model's tokenizer."""
    import transformers
    from transformers import AutoTokenizer, Blip2Config, Blip2Processor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    torch.manual_seed(1)
    reads = {"use_qformer_text_input": architecture == "Blip2ForImageTextRetrieval", "max_position_embeddings": 64}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Blip2Config(
        vision_config={**vision, "image_size": SIDE, "patch_size": 8, "initializer_range": 0.2},
        qformer_config={
            **vision, **reads, "vocab_size": 437, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0
        },
        text_config=text_config.to_dict(),
        num_query_tokens=QUERIES,
        image_text_hidden_size=16,
        image_token_index=4,
    )  # fmt: skip
    model = getattr(transformers, architecture)(config).eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            spread = 1.0 if name in ("query_tokens", "language_projection.weight") else 0.25
            torch.nn.init.normal_(weight, std=spread)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    processor = Blip2Processor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer, QUERIES)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if pillow-heif were not installed: by their names, HEIF files are not images."""
    from blip2cli.inputs import image_formats

    monkeypatch.setattr(image_formats, "find_spec", lambda package: None)
    image_formats.read_suffixes.cache_clear()
    yield
    image_formats.read_suffixes.cache_clear()


@pytest.fixture
def blip2(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `blip2` in an empty folder, in a process of its own."""

    def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "blip2cli", *map(str, arguments)],
            input=stdin, capture_output=True, text=True, cwd=tmp_path, timeout=120,
        )  # fmt: skip
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, without_loading(done.stderr))

    return run


@pytest.fixture(scope="session")
def fork_server() -> Any:
    """Starts processes that are forked from one that has imported what takes seconds: a context of multiprocessing."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.run.engines.test_replicas", "tests.run.engines.imported"])
    forkserver.ensure_running()  # here, in the project's folder, from which it imports
    return context


def run_in(folder: Path, words: list[str]) -> None:
    """`blip2` as it is typed in a folder, in a process and a process group of its own. Stderr goes to told.txt."""
    os.setsid()
    os.chdir(folder)
    with open("told.txt", "w", encoding="utf-8") as told:
        os.dup2(told.fileno(), 2)
    sys.argv = ["blip2", *words]
    start_program()


Start = Callable[..., Any]
"""Starts a command in a folder; gives its process."""


@pytest.fixture(scope="session")
def forked(fork_server: Any) -> Iterator[Start]:
    """Start `blip2` in a process that was forked: for tests that kill it, or send signals to it, once it runs."""
    runs = []

    def start(folder: Path, *words: object) -> Any:
        runs.append(fork_server.Process(target=run_in, args=(folder, [*map(str, words)])))
        runs[-1].start()
        return runs[-1]

    yield start
    for run in runs:
        run.kill()
        run.join()


@pytest.fixture
def quick_start(fork_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are forked: for tests of what they do, but not of how they start."""
    monkeypatch.setattr(replica_process, "multiprocessing", SimpleNamespace(get_context=lambda method: fork_server))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium. Where there is none, tests are skipped, or with BLIP2_REQUIRE_BROWSER fail."""
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        say = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
        say("needs a browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=command, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Typed:
    """What came of a command line."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        return rows_of(self.out)


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Typed]]:
    """Run `blip2` with the bundled model in an empty folder, in one thread of this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLIP2_MODEL", "tiny")

    def run(*arguments: object, stdin: str = "") -> Typed:
        monkeypatch.setattr(sys, "argv", ["blip2", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BufferedReader(BytesIO(stdin.encode()))))
        restart_clock()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Typed(end.value.code or 0, out, without_loading(err))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(threads)


def without_loading(err: str) -> str:
    """What was written to stderr, without the line that says which model is loaded: it comes first in most runs."""
    return re.sub(r"^Loading .*\n", "", err, flags=re.MULTILINE)


def approximate(value: Any) -> Any:
    """The same for a comparison in which the last digits of floats do not count: they depend on processor and batch."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-4, abs=2e-5)
    if isinstance(value, list):
        return [approximate(part) for part in value]
    return {name: approximate(part) for name, part in value.items()} if isinstance(value, dict) else value


def rows_of(text: str) -> list[dict]:
    """JSON lines as rows."""
    return [json.loads(line) for line in text.splitlines()]
