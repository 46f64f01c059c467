"""`blip2 chat`: questions about one image that follow on from each other."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from io import BufferedReader, BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import torch

from blip2cli.commands.chat import Chat, ChatTurn, Conversation
from blip2cli.errors import ImageError
from blip2cli.host.terminal import ChatTerminal
from blip2cli.images.decode import Reading
from blip2cli.model.blip2 import Blip2Model
from blip2cli.model.checkpoint.find import find_checkpoint
from blip2cli.model.decoding.opt import OptDecoder
from blip2cli.settings import GenerationSettings, ModelSettings
from blip2cli.tasks.template import Template
from tests.cli.test_processes import ENVIRONMENT, read_some
from tests.conftest import Typed

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CIRCLE = EXAMPLES / "red-circle.png"
SCENE = EXAMPLES / "scenes" / "red-circle-black-triangle.png"
QUESTIONS = ["how many shapes are there?", "what shape is red?", "is there a triangle?", "what shape is black?"]
Run = Callable[..., Typed]


@pytest.fixture(params=["opt", "t5"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_checkpoint")


def talk(checkpoint: Path, limit: int | None = None, **generation: object) -> Conversation:
    found = find_checkpoint(ModelSettings(model=str(checkpoint), dtype="fp32", device="cpu"))
    settings = GenerationSettings(**{"max_new_tokens": 8, **generation})
    assert found.family
    template = Template(found.family.template, "--template")
    conversation = Conversation(Blip2Model(found, 1), settings, template, Reading(found.images.side), limit)
    conversation.look_at(str(CIRCLE))
    return conversation


def test_answers_are_those_of_vqa_where_nothing_was_said_before(typed: Run) -> None:
    asked = [word for question in QUESTIONS for word in ("-p", question)]
    expected = typed("vqa", SCENE, *asked, "--dtype", "fp32")
    chatted = typed("chat", SCENE, "--dtype", "fp32", stdin="\n".join(QUESTIONS))
    assert (chatted.code, chatted.rows) == (0, expected.rows)
    reminded = typed("chat", SCENE, "--dtype", "fp32", "--turns", 9, stdin="\n".join(QUESTIONS))
    assert reminded.rows[0] == expected.rows[0] and reminded.rows != expected.rows


def test_the_prompt_is_put_together_as_in_lavis(checkpoint: Path) -> None:
    conversation = talk(checkpoint)
    short = "Short answer" if "t5" in str(checkpoint) else "Answer"
    assert conversation.text("why?", [ChatTurn("which city?", "singapore"), ChatTurn("sure?", "yes.")]) == (
        f"Question: which city? {short}: singapore. Question: sure? {short}: yes. Question: why? {short}:"
    )


def test_earlier_turns_stand_in_the_prompt_up_to_the_limit(opt_checkpoint: Path) -> None:
    answers = {}
    for limit in (None, 1, 0):
        conversation = talk(opt_checkpoint, limit)
        answers[limit] = ["".join(conversation.ask(question)) for question in ("a?", "b?", "c?")]
        assert conversation.turns[-1] == ChatTurn("c?", answers[limit][-1])
        told = [turn.question for turn in conversation.reminded()]
        assert told == {None: ["a?", "b?", "c?"], 1: ["c?"], 0: []}[limit]
    assert len({answer[0] for answer in answers.values()}) == 1 and len({answer[2] for answer in answers.values()}) == 3


def test_an_image_is_encoded_once_and_prefilled_once(opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation, encoded, prefilled = talk(opt_checkpoint), [], []
    vision, prefill = conversation.model.encoder.vision, OptDecoder._keep_prefixes
    monkeypatch.setattr(conversation.model.encoder, "vision", lambda pixels: encoded.append(1) or vision(pixels))

    def counted(self: OptDecoder, requests: list) -> int:
        prefilled.extend(request for request in requests if request.image.prefix is None)
        return prefill(self, requests)

    monkeypatch.setattr(OptDecoder, "_keep_prefixes", counted)
    for question in QUESTIONS:
        list(conversation.ask(question))
    assert (len(encoded), len(prefilled)) == (0, 1)


def test_the_oldest_turns_go_where_there_is_no_room_and_that_is_said_once(typed: Run, opt_checkpoint: Path) -> None:
    ran = typed("chat", CIRCLE, "-m", opt_checkpoint, stdin="how many shapes do you see in the picture?\n" * 12)
    assert ran.code == 0 and len(ran.rows) == 12
    assert ran.err.count("conversation no longer fits") == 1
    conversation = talk(opt_checkpoint)
    for _ in range(12):
        list(conversation.ask("how many shapes do you see in the picture?"))
        prompt = conversation.text("x?", conversation.turns)
        assert len(conversation.model.prompt_ids(prompt)) < 200, "turns that are gone are not kept"


def test_commands_work_in_a_script(typed: Run, tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(CIRCLE.read_bytes())
    script = [
        "what shape is it?", "/image a b.png", "what shape is it?", "/history", "/reset", "/history", "/nothing",
        "/image", "/quit", "never asked?",
    ]  # fmt: skip
    ran = typed("chat", EXAMPLES / "teal-triangle.png", "--turns", 3, stdin="\n".join(script))
    assert ran.code == 0
    assert [(row["image"], row["answer"]) for row in ran.rows] == [
        (str(EXAMPLES / "teal-triangle.png"), "triangle"),
        ("a b.png", "circle"),
    ]
    assert ran.err.splitlines() == [
        "blip2: > what shape is it?",
        "blip2: circle",
        "blip2: The prompt has no earlier turns.",
        "blip2: There is no /nothing; /help lists the commands.",
        "blip2: Talking about a b.png; /image PATH changes that.",
    ]
    assert all(command in typed("chat", CIRCLE, stdin="/help").err for command in ("/image PATH", "/reset", "/quit"))


def test_an_image_that_cannot_be_used_is_an_error_of_its_questions(typed: Run) -> None:
    Path("torn.png").write_bytes(CIRCLE.read_bytes()[:200])
    ran = typed("chat", CIRCLE, stdin=f"/image torn.png\na?\n/image gone.png\nb?\n/image {CIRCLE}\nwhat shape is it?\n")
    assert ran.code == 3
    assert [(row["image"], row["question"], row["answer"]) for row in ran.rows] == [
        ("torn.png", "a?", None), ("gone.png", "b?", None), (str(CIRCLE), "what shape is it?", "circle"),
    ]  # fmt: skip
    assert [row["error"].partition(":")[0] if row["error"] else None for row in ran.rows] == [
        "truncated", "missing", None,
    ]  # fmt: skip


def test_questions_that_cannot_be_asked_do_not_end_the_chat(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    step = OptDecoder.step
    ran = typed("chat", CIRCLE, stdin=f"{'why ' * 600}?\n{'x' * 100_000}\nwhat shape is it?\n")
    assert ran.code == 3 and ran.rows[2]["answer"] == "circle"
    assert all(row["error"].startswith("prompt-too-long: ") for row in ran.rows[:2])
    failures = iter([torch.OutOfMemoryError("no memory"), RuntimeError("odd\nshape")])

    def fail(self: OptDecoder, tokens: Sequence[int]) -> torch.Tensor:
        if failure := next(failures, None):
            raise failure
        return step(self, tokens)

    monkeypatch.setattr(OptDecoder, "step", fail)
    ran = typed("chat", CIRCLE, stdin="a?\nb?\nwhat shape is it?\n")
    assert [row["error"] for row in ran.rows] == [
        "failed: OutOfMemoryError: no memory",
        "failed: RuntimeError: odd shape",
        None,
    ]


def test_hostile_lines_are_text(typed: Run) -> None:
    ran = typed("chat", CIRCLE, stdin="what </s> <image> is {it}?\n\x1b[31m\x00?\n")
    assert (ran.code, ran.rows[0]["question"]) == (0, "what </s> <image> is {it}?")
    assert json.loads(ran.out.splitlines()[1])["question"] == "\x1b[31m\x00?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no input given"),
        ((CIRCLE, CIRCLE), "blip2 chat is about one image"),
        ((EXAMPLES,), f"{EXAMPLES} is a folder"),
        (("gone.png",), "gone.png does not exist"),
        (("text.txt",), "cannot use text.txt: unsupported: "),
        ((CIRCLE, "--template", "Answer:"), "--template does not contain {}"),
        ((CIRCLE, "--template", "{a} {}"), "--template uses column a"),
        ((CIRCLE, "--max-new-tokens", 600), "--max-new-tokens 600 is more than the model has room for"),
        ((CIRCLE, "--scores"), "--scores is not an option of this command"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(typed: Run, words: tuple[object, ...], message: str) -> None:
    Path("text.txt").write_text("no image")
    ran = typed("chat", *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"blip2: {message}") and ran.err.count("\n") == 2


def test_an_answer_that_is_stopped_was_not_said(
    opt_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation, step, steps = talk(opt_checkpoint, min_new_tokens=8), OptDecoder.step, iter(range(100))

    def interrupted(self: OptDecoder, tokens: Sequence[int]) -> torch.Tensor:
        if next(steps) == 4:
            raise KeyboardInterrupt
        return step(self, tokens)

    monkeypatch.setattr(OptDecoder, "step", interrupted)
    chat = Chat(conversation, ChatTerminal())
    chat.ask("a?")
    assert conversation.turns == [] and capsys.readouterr().out.endswith(" (stopped)\n")
    chat.ask("b?")
    assert [turn.question for turn in conversation.turns] == ["b?"] and chat.failures == 0


def test_a_script_that_is_interrupted_ends(typed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: OptDecoder, tokens: Sequence[int]) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(OptDecoder, "step", interrupted)
    ran = typed("chat", CIRCLE, stdin="a?\nb?\n")
    assert (ran.code, ran.out, ran.err) == (130, "", "blip2: interrupted\n")


def test_a_terminal_shows_a_script_as_it_goes_and_nothing_steers_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BufferedReader(BytesIO(b"what?\n\n \x1b[31mhow? \xff\n"))))
    screen = ChatTerminal()
    assert list(screen.lines()) == ["what?", "\x1b[31mhow? \\xff"]
    screen.piece("\x1b[2J")
    screen.answered("a.png", "what?", "")
    assert capsys.readouterr().out == "> what?\n>  [31mhow? \\xff\n [2J(no answer)\n"


def test_a_bad_image_leaves_a_conversation_as_it_was(opt_checkpoint: Path, tmp_path: Path) -> None:
    conversation = talk(opt_checkpoint)
    list(conversation.ask("a?"))
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="empty: 0 bytes"):
        conversation.look_at(str(tmp_path / "empty.png"))
    assert conversation.name == str(CIRCLE) and len(conversation.turns) == 1


def test_a_conversation_on_a_terminal(tmp_path: Path) -> None:
    """Typed as a user does: answers, an arrow key, a command, Ctrl-C at the prompt, Ctrl-D."""
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "blip2cli", "chat", str(SCENE)]
    running = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=ENVIRONMENT)
    os.close(slave)
    try:
        seen = wait_for(master, "> ")
        assert "Talking about " in seen and "--turns N changes that" in seen
        os.write(master, b"how many shapes are there?\n")
        assert "\n2\n" in wait_for(master, "\n> ")
        os.write(master, b"\x1b[A\n")
        assert "\n2\n" in wait_for(master, "\n> "), "the line above comes back"
        os.write(master, b"half a li")
        wait_for(master, "half a li")
        ready = False
        while not ready:  # Python's readline misses a signal that comes while it is not yet waiting for the next key
            running.send_signal(signal.SIGINT)
            ready = bool(select.select([master], [], [], 1)[0])
        wait_for(master, "\n> ")
        os.write(master, f"/image {CIRCLE}\n".encode())
        while f"Talking about {CIRCLE}." not in wait_for(master, "\n> "):
            pass  # a second signal brought one more prompt
        os.write(master, b"\x04")
        while read_some(master):
            pass
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()
        running.wait()
        os.close(master)


def wait_for(terminal: int, end: str) -> str:
    """What the terminal shows from now on until it shows that at its end."""
    seen = ""
    while not seen.endswith(end):
        ready, _, _ = select.select([terminal], [], [], 60)
        chunk = read_some(terminal).decode() if ready else ""
        assert chunk, seen
        seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen + chunk).replace("\r\n", "\n").replace("\r", "")
    return seen
