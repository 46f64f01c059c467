"""A conversation about one image: earlier questions and answers are part of the next prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from blip2cli.errors import Blip2Error, ImageError, Terminated, UsageError, reason
from blip2cli.records import RowError
from blip2cli.settings import Job, Opt, TaskOptions
from blip2cli.tasks.template import Template, check_place

if TYPE_CHECKING:
    from blip2cli.images.decode import Reading
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.decoding.requests import EncodedImage
    from blip2cli.records import Batch
    from blip2cli.settings import GenerationSettings

HELP = {
    "/image PATH": "talk about another image, and start again",
    "/reset": "forget the conversation so far",
    "/history": "show the earlier turns that are in the prompt",
    "/help": "show this list",
    "/quit": "quit, like Ctrl-D; Ctrl-C stops an answer",
}

ALONE = "tiny was trained on single questions, so each question is asked alone; --turns N changes that."

SHARED = 2
"""Uses of an encoded image, so many that its prefix is kept for further questions."""


@dataclass(frozen=True)
class ChatOptions(TaskOptions):
    """The options of `blip2 chat` alone."""

    panel = "Chat"
    takes = "an image file"
    turns: Annotated[
        int | None,
        Opt(
            "Number of earlier questions and answers in the prompt. [default: as many as fit; tiny: 0]",
            metavar="N",
            min=0,
        ),
    ] = None
    template: Annotated[
        str | None, Opt("What a question is put into, at {}. [default: by language model]", metavar="TEXT")
    ] = None

    def validate(self) -> None:
        check_place(self.template)


@dataclass(frozen=True)
class ChatTurn:
    """A question and its answer."""

    question: str
    answer: str


@dataclass
class Conversation:
    """A conversation about an image, which is encoded once.

    `turns` are those that are still in the prompt; `forgot` says whether some were left out because they no longer
    fit.
    """

    model: Blip2Model
    settings: GenerationSettings
    template: Template
    reading: Reading
    limit: int | None = None
    name: str = ""
    turns: list[ChatTurn] = field(default_factory=list)
    forgot: bool = False
    _image: EncodedImage | None = field(default=None, repr=False)

    def look_at(self, path: str) -> None:
        """Start again with another image. Raises ImageError, and then keeps the previous image."""
        batch = read(path, self.reading)
        (image,) = self.model.encode(batch)
        if image.error:
            raise ImageError(image.error.kind, image.error.detail)
        image.uses = SHARED
        self._image, self.name = image, batch.rows[0].name
        self.reset()

    def reset(self) -> None:
        """Forget the conversation so far."""
        self.turns, self.forgot = [], False

    def ask(self, question: str) -> Iterator[str]:
        """The answer, in pieces while it is written. It becomes a turn when it is complete. Raises TooLong."""
        from blip2cli.model.decoding.requests import Request

        if self._image is None:
            raise ValueError("there is no image to talk about")
        settings, most = self.settings, self.settings.max_new_tokens or 1
        before, prompt_ids = self._prompt(question, self.model.prompt_room(most))
        draw = (0, len(self.turns))
        request = Request(question, self._image, prompt_ids, (settings.min_new_tokens, most), draw)
        answer = ""
        for piece in self.model.stream(request, settings):
            answer += piece
            yield piece
        self.forgot = self.forgot or len(before) < len(self.reminded())
        self.turns = [*(before if self.forgot else self.turns), ChatTurn(question, answer)]

    def reminded(self) -> list[ChatTurn]:
        """The turns that should be in the next prompt."""
        return self.turns if self.limit is None else self.turns[len(self.turns) - min(self.limit, len(self.turns)) :]

    def _prompt(self, question: str, room: int) -> tuple[list[ChatTurn], tuple[int, ...]]:
        """The turns that fit before the question, and the token ids of the whole prompt. Raises TooLong."""
        from blip2cli.model.decoding.requests import TooLong

        turns = self.reminded()
        while True:
            try:
                return turns, self.model.prompt_ids(self.text(question, turns), room)
            except TooLong:
                if not turns:
                    raise
                turns = turns[1:]

    def text(self, question: str, turns: Iterable[ChatTurn]) -> str:
        """The prompt in the form of LAVIS: "Question: {} Answer: {}." for each turn, then the question."""
        from blip2cli.records import Row

        row = Row(0, self.name)
        said = [f"{self.template.fill(row, turn.question)} {turn.answer.removesuffix('.')}." for turn in turns]
        return " ".join([*said, self.template.fill(row, question)])


def read(path: str, reading: Reading) -> Batch:
    """One image, decoded. Raises ImageError."""
    from blip2cli.images.loader import Loading, load
    from blip2cli.inputs.folder import image_row

    (batch,) = load([image_row(os.path.expanduser(path))], reading, 1, Loading(workers=0))
    (error,) = batch.errors
    if error is not None:
        raise ImageError(error.kind, error.detail)
    return batch


class Screen(Protocol):
    """The source of lines and the destination of answers; `terminal` has one for a terminal and one for a pipe."""

    scripted: bool

    def lines(self) -> Iterator[str]: ...
    def piece(self, text: str) -> None: ...
    def answered(self, image: str, question: str, answer: str) -> None: ...
    def failed(self, image: str, question: str, error: str) -> None: ...
    def interrupted(self) -> None: ...
    def told(self, lines: Iterable[str]) -> None: ...


@dataclass
class Chat:
    """A conversation and its screen: runs each typed line.

    In a script, questions about an image that cannot be used become error rows: `broken` is its path and its error.
    On a terminal the previous image is kept.
    """

    conversation: Conversation
    screen: Screen
    broken: tuple[str, str] | None = None
    failures: int = 0

    def run(self) -> int:
        """Process lines until there are no more; returns how many questions failed."""
        for line in self.screen.lines():
            if line == "/quit":
                break
            if line.startswith("/"):
                self.command(*line.split(None, 1))
            else:
                self.ask(line)
        return self.failures

    def ask(self, question: str) -> None:
        if self.broken is not None:
            self._fail(self.broken[0], question, self.broken[1])
            return
        talk, answer, had_forgotten = self.conversation, "", self.conversation.forgot
        try:
            for piece in talk.ask(question):
                answer += piece
                self.screen.piece(piece)
        except Terminated:
            raise
        except KeyboardInterrupt:
            self.screen.interrupted()
        except Exception as error:  # the chat continues, whatever the error of the model
            self._fail(talk.name, question, _in_words(error))
        else:
            self.screen.answered(talk.name, question, answer)
        if talk.forgot and not had_forgotten:
            self.screen.told(["The whole conversation no longer fits: the oldest questions are left out from now on."])

    def _fail(self, image: str, question: str, error: str) -> None:
        self.failures += 1
        self.screen.failed(image, question, error)

    def command(self, name: str, given: str = "") -> None:
        commands: dict[str, Callable[[str], Iterable[str]]] = {
            "/image": self._image,
            "/reset": self._reset,
            "/history": self._history,
            "/help": lambda given: [f"{command:<12} {what}" for command, what in HELP.items()],
        }
        unknown = [f"There is no {name}; /help lists the commands."]
        self.screen.told(commands[name](given.strip()) if name in commands else unknown)

    def _image(self, path: str) -> Iterable[str]:
        if not path:
            return [f"Talking about {self.conversation.name}; /image PATH changes that."]
        try:
            self.conversation.look_at(path)
        except ImageError as error:
            if self.screen.scripted:
                self.broken = (path, str(error))
            return [f"{path}: {error}"]
        self.broken = None
        return [] if self.screen.scripted else [f"Talking about {self.conversation.name}."]

    def _reset(self, given: str) -> Iterable[str]:
        self.conversation.reset()
        return [] if self.screen.scripted else ["Forgotten."]

    def _history(self, given: str) -> Iterable[str]:
        turns = self.conversation.reminded()
        return [line for turn in turns for line in (f"> {turn.question}", turn.answer)] or [
            "The prompt has no earlier turns."
        ]


def _in_words(error: Exception) -> str:
    """The error of a row."""
    from blip2cli.model.decoding.requests import TooLong

    if isinstance(error, Blip2Error):
        return error.message
    if isinstance(error, TooLong):
        return str(RowError("prompt-too-long", str(error)))
    return str(RowError("failed", reason(error, named=True)))


def converse(job: Job) -> int:
    """Run the conversation; returns how many questions failed. Raises Blip2Error."""
    from blip2cli.host.terminal import chat_screen, hush_libraries
    from blip2cli.model.checkpoint.hub import check_model_name

    path = _only(job.input.inputs)
    check_model_name(job.model_name)
    screen = chat_screen()
    if not screen.scripted:
        screen.told([f"Loading {job.model_name} ..."])
    hush_libraries()
    conversation = _begun(job, path)
    if not screen.scripted:
        screen.told([f"Talking about {conversation.name}; /help lists commands.", *([ALONE] if _alone(job) else [])])
    return Chat(conversation, screen).run()


def _begun(job: Job, path: str) -> Conversation:
    """A conversation about the image; errors are found before the model is loaded, if possible."""
    from blip2cli.host.terminal import show_warning
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint.find import find_checkpoint
    from blip2cli.run.reading import reading_for
    from blip2cli.tasks.generation import check_length, with_length
    from blip2cli.tasks.vqa import MAX_NEW_TOKENS

    options = job.options_as(ChatOptions)
    asked = options.template and Template(options.template, "--template")
    if asked:
        asked.check(())
    checkpoint = find_checkpoint(job.model, job.kind)
    if checkpoint.caution:
        show_warning(checkpoint.caution)
    reading = reading_for(checkpoint.images, job.model)
    try:
        read(path, reading)
        model, settings = Blip2Model(checkpoint, 1), with_length(job.generation, MAX_NEW_TOKENS)
        check_length(model, settings)
        template = asked or Template(model.family.template, "--template")
        conversation = Conversation(model, settings, template, reading, 0 if _alone(job) else options.turns)
        conversation.look_at(path)
    except ImageError as error:
        raise UsageError(f"cannot use {path}: {error}", "Give another image.") from None
    return conversation


def _alone(job: Job) -> bool:
    """Whether each question is asked alone although --turns was not given."""
    return job.model_name == "tiny" and job.options_as(ChatOptions).turns is None


def _only(inputs: tuple[Any, ...]) -> str:
    """The one image of the inputs, if it can exist. Raises UsageError."""
    from blip2cli.host.storage import is_url

    if len(inputs) > 1:
        raise UsageError("blip2 chat is about one image", "Give one image; /image PATH changes to another.")
    (path,) = inputs
    if not is_url(path) and not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UsageError(f"{path} {what}", "Give an image file.")
    return str(path)
