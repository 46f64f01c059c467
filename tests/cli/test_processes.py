"""`blip2` as a process: what it imports, pipes, terminals and signals."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import rows_of

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BLIP2 = [sys.executable, "-m", "blip2cli"]
ROWS = 1500
HEAVY = (
    "torch", "transformers", "pyarrow", "PIL", "numpy", "pandas", "datasets", "tqdm", "huggingface_hub", "safetensors",
    "tokenizers", "accelerate", "fsspec", "upath", "jinja2", "aiohttp", "s3fs", "zstandard", "ray", "usearch",
    "pycocoevalcap", "requests", "httpx", "asyncio",
)  # fmt: skip
"""All that this program uses, but Typer, what that shows help by, and locks; and what takes longest elsewhere."""
ENVIRONMENT = {**os.environ, "BLIP2_MODEL": "tiny", "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["--help"], ("blip2cli.settings", "blip2cli.tasks")),
        (["caption", "--help"], ("blip2cli.tasks.vqa", "blip2cli.commands")),
        (["caption", "gone.jpg"], ("blip2cli.tasks.vqa", "blip2cli.commands")),
        (["vqa", "--nonsense"], ()),
    ],
)
def test_help_and_wrong_usage_import_nothing_heavy(words: list[str], unused: tuple[str, ...], tmp_path: Path) -> None:
    script = f"""
import sys
from blip2cli.cli import main
sys.argv = ["blip2", *{words!r}]
try:
    main()
except SystemExit:
    print("HEAVY", [name for name in {HEAVY + unused!r} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert ran.stdout.endswith("HEAVY []\n"), ran.stdout + ran.stderr


def test_the_shell_completes_commands_and_options() -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_BLIP2_COMPLETE": "complete_bash"}
        script = "import sys; sys.argv = ['blip2']; from blip2cli.cli import main; main()"
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT | words)
        return ran.stdout.split()

    assert completed("blip2 cap") == ["caption"]
    assert "--num-captions" in completed("blip2 caption --num")


def test_a_reader_that_has_enough_ends_the_run_quietly(tmp_path: Path) -> None:
    Path(tmp_path / "m.csv").write_text("image\n" + f"{EXAMPLES}/red-circle.png\n" * 5000)
    line = f"{' '.join(BLIP2)} caption m.csv --workers 0 | head -n 2; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    *rows, code = ran.stdout.splitlines()
    assert [row["caption"] for row in rows_of("\n".join(rows))] == ["a red circle"] * 2
    assert (code, ran.stderr) == ("0", "Loading tiny\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_two_lines_and_exit_code_1(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*BLIP2, "caption", str(EXAMPLES)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=ENVIRONMENT,
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Loading tiny\nblip2: cannot write to stdout: No space left on device\n")
    assert ran.stderr.count("\n") == 3


def test_a_terminal_of_80_columns_gets_a_table_and_a_progress_line_below_it(tmp_path: Path) -> None:
    (tmp_path / "scan \x1b[31m.png").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    (tmp_path / "zero.jpg").touch()
    words = ["vqa", ".", str(EXAMPLES / "scenes"), "-p", "how many shapes are there?", "--batch-size", "2"]
    written = on_a_terminal([*BLIP2, *words], tmp_path, columns=80)
    assert re.search(r"\rLoading tiny, 0:\d\d", written) and re.search(r"\| \d of 9 images, \d", written), "progress"
    lines = [line.rstrip() for line in shown(written).splitlines()]
    assert lines[0].split() == ["image", "question", "answer"]
    assert re.fullmatch(r"\./scan  \[31m\.png +how many shapes are there\? +1", lines[1])
    assert re.fullmatch(r"\./zero\.jpg +how many shapes are there\? +error: empty: 0 bytes", lines[2])
    assert all(line.startswith("…") and line[-1] in "123" for line in lines[3:10])
    assert all(len(line) <= 80 for line in lines[:10])
    assert lines[10].startswith("9 rows, 1 with errors, in ")
    assert "\x1b[31m" not in written.replace("\x1b[31merror: ", ""), "no name steers"


def test_numbers_take_little_of_a_terminal_and_an_error_takes_the_place_of_all_values(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    words = ["caption", "zero.jpg", str(EXAMPLES / "red-circle.png"), "--scores", "--quiet"]
    lines = shown(on_a_terminal([*BLIP2, *words], tmp_path, columns=80)).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["image", "caption", "logprob", "probability"],
        [lines[1].split()[0], "error:", "empty:", "0", "bytes"],
    ]
    assert re.search(r"red-circle\.png +a red circle +-\S+ +0\.\d+$", lines[2].rstrip()), lines[2]
    assert lines[1].index("error: ") == lines[0].index("caption") == lines[2].index("a red circle")
    assert len(lines) == 3 and lines[0].index("logprob") > 80 - 2 * 14 - 1


def on_a_terminal(command: list[str], folder: Path, columns: int) -> str:
    """Run a command with stdout and stderr on a terminal of that width; gives all that it wrote."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(command, stdout=slave, stderr=slave, cwd=folder, env=environment) as running:
        os.close(slave)
        written = b""
        while chunk := read_some(master):
            written += chunk
    os.close(master)
    assert running.returncode in (0, 3), written.decode()
    return written.decode()


def read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says once nobody holds the other end
        return b""


def shown(written: str) -> str:
    """What stays on the screen: of each line what was written last."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.replace("\r\n", "\n"))
    return "\n".join(line.rpartition("\r")[2] for line in plain.split("\n"))
