"""A conversation about one image: what was asked and answered before stands in the prompt of the next question."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from blip2cli.errors import Blip2Error, ImageError, Terminated, UsageError, reason
from blip2cli.records import RowError
from blip2cli.settings import Job, Opt
from blip2cli.tasks.template import Template, check_place

if TYPE_CHECKING:
    from blip2cli.images.decode import Reading
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.decoding.requests import EncodedImage
    from blip2cli.records import Batch
    from blip2cli.settings import GenerationSettings

HELP = {
    "/image PATH": "talk about another image, from the start",
    "/reset": "forget what was said",
    "/history": "show what the model is reminded of",
    "/help": "show this",
    "/quit": "leave, as Ctrl-D does; Ctrl-C stops an answer",
}

ALONE = "tiny learned single questions, so each is asked by itself; --turns N changes that."

SHARED = 2
"""Uses of an encoded image that keep its prefix: there is always another question to come."""


@dataclass(frozen=True)
class ChatOptions:
    """What `blip2 chat` alone is told."""

    panel = "Chat"
    turns: Annotated[
        int | None,
        Opt(
            "Earlier questions, with answers, that stand in the prompt. [default: all there is room for; tiny: 0]",
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
class Turn:
    """A question and what was answered."""

    question: str
    answer: str


@dataclass
class Conversation:
    """What has been said about an image, which is encoded once.

    `turns` are those that the model is still reminded of; `forgot` says whether some had to go for want of room.
    """

    model: Blip2Model
    settings: GenerationSettings
    template: Template
    reading: Reading
    limit: int | None = None
    name: str = ""
    turns: list[Turn] = field(default_factory=list)
    forgot: bool = False
    _image: EncodedImage | None = field(default=None, repr=False)

    def look_at(self, path: str) -> None:
        """Begin anew with another image. Raises ImageError, and then goes on with the one there was."""
        batch = read(path, self.reading)
        (image,) = self.model.encode(batch)
        if image.error:
            raise ImageError(image.error.kind, image.error.detail)
        image.uses = SHARED
        self._image, self.name = image, batch.rows[0].name
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        self.turns, self.forgot = [], False

    def ask(self, question: str) -> Iterator[str]:
        """The answer, in pieces as it is written. It counts as said once it is whole. Raises TooLong."""
        from blip2cli.model.decoding.requests import Request

        if self._image is None:
            raise ValueError("no image was looked at")
        settings, most = self.settings, self.settings.max_new_tokens or 1
        before, prompt_ids = self._prompt(question, self.model.prompt_room(most))
        draw = (0, len(self.turns))
        request = Request(question, self._image, prompt_ids, (settings.min_new_tokens, most), draw)
        answer = ""
        for piece in self.model.stream(request, settings):
            answer += piece
            yield piece
        self.forgot = self.forgot or len(before) < len(self.reminded())
        self.turns = [*(before if self.forgot else self.turns), Turn(question, answer)]

    def reminded(self) -> list[Turn]:
        """The turns that should stand in the next prompt."""
        return self.turns if self.limit is None else self.turns[len(self.turns) - min(self.limit, len(self.turns)) :]

    def _prompt(self, question: str, room: int) -> tuple[list[Turn], tuple[int, ...]]:
        """The turns that there is room for before the question, and the token ids of all. Raises TooLong."""
        from blip2cli.model.decoding.requests import TooLong

        turns = self.reminded()
        while True:
            try:
                return turns, self.model.prompt_ids(self.text(question, turns), room)
            except TooLong:
                if not turns:
                    raise
                turns = turns[1:]

    def text(self, question: str, turns: Iterable[Turn]) -> str:
        """The prompt as LAVIS puts a context together: "Question: {} Answer: {}." for each turn, then the question."""
        from blip2cli.records import Row

        row = Row(0, self.name)
        said = [f"{self.template.fill(row, turn.question)} {turn.answer.removesuffix('.')}." for turn in turns]
        return " ".join([*said, self.template.fill(row, question)])


def read(path: str, reading: Reading) -> Batch:
    """One image, decoded. Raises ImageError."""
    from blip2cli.images.loader import Loading, load
    from blip2cli.inputs.folder import image_row

    (batch,) = load([image_row(os.path.expanduser(path))], reading, Loading(1, workers=0))
    (error,) = batch.errors
    if error is not None:
        raise ImageError(error.kind, error.detail)
    return batch


class Screen(Protocol):
    """Where lines come from and answers go; `terminal` has a terminal and a pipe."""

    scripted: bool

    def lines(self) -> Iterator[str]: ...
    def piece(self, text: str) -> None: ...
    def answered(self, image: str, question: str, answer: str) -> None: ...
    def failed(self, image: str, question: str, error: str) -> None: ...
    def interrupted(self) -> None: ...
    def told(self, lines: Iterable[str]) -> None: ...


@dataclass
class Chat:
    """A conversation and its screen: what a typed line does.

    In a script, an image that cannot be used stands in its questions' rows, as in all output: `broken` is its path and
    its error. On a terminal one goes on with the image there was.
    """

    conversation: Conversation
    screen: Screen
    broken: tuple[str, str] | None = None
    failures: int = 0

    def run(self) -> int:
        """Take lines until there are no more; gives how many questions failed."""
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
        except Exception as error:  # the chat goes on, whatever the model failed at
            self._fail(talk.name, question, _told(error))
        else:
            self.screen.answered(talk.name, question, answer)
        if talk.forgot and not had_forgotten:
            self.screen.told(
                ["There is no room for all that was said: the oldest questions are forgotten from now on."]
            )

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
        unknown = [f"There is no {name}; /help lists what there is."]
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
            "There is nothing that the model would be reminded of."
        ]


def _told(error: Exception) -> str:
    """What went wrong, as it stands in a row."""
    from blip2cli.model.decoding.requests import TooLong

    if isinstance(error, Blip2Error):
        return error.message
    if isinstance(error, TooLong):
        return str(RowError("prompt-too-long", str(error)))
    return str(RowError("failed", reason(error, named=True)))


def converse(job: Job) -> int:
    """Talk about the job's image until there are no more lines; gives how many questions failed. Raises Blip2Error."""
    from blip2cli.host.terminal import chat_screen, hush_libraries
    from blip2cli.model.hub import check_name

    path = _only(job.input.inputs)
    check_name(job.model_name)
    hush_libraries()
    screen = chat_screen()
    if not screen.scripted:
        screen.told([f"Loading {job.model_name} ..."])
    conversation = _begun(job, path)
    if not screen.scripted:
        screen.told([f"Talking about {conversation.name}; /help lists commands.", *([ALONE] if _alone(job) else [])])
    return Chat(conversation, screen).run()


def _begun(job: Job, path: str) -> Conversation:
    """A conversation about the image; what is wrong is found before the model is loaded, where it can be."""
    from blip2cli.host.terminal import show_warning
    from blip2cli.model.blip2 import Blip2Model
    from blip2cli.model.checkpoint import find
    from blip2cli.run.pipeline import reading_for
    from blip2cli.tasks.generation import check_length, with_length
    from blip2cli.tasks.vqa import MAX_NEW_TOKENS

    options: ChatOptions = job.options
    asked = options.template and Template(options.template, "--template")
    if asked:
        asked.check(())
    checkpoint = find(job.model, job.kind)
    if checkpoint.caution:
        show_warning(checkpoint.caution)
    reading = reading_for(checkpoint, job.model)
    try:
        read(path, reading)
        model, settings = Blip2Model(checkpoint, 1), with_length(job.generation, MAX_NEW_TOKENS)
        check_length(model, settings)
        template = asked or Template(model.family.template, "--template")
        conversation = Conversation(model, settings, template, reading, 0 if _alone(job) else options.turns)
        conversation.look_at(path)
    except ImageError as error:
        raise UsageError(f"cannot use {path}: {error}", "Name another image.") from None
    return conversation


def _alone(job: Job) -> bool:
    """Whether each question is asked by itself without anybody having said so."""
    return job.model_name == "tiny" and job.options.turns is None


def _only(inputs: tuple[Any, ...]) -> str:
    """The one image that is named, if it may be there. Raises UsageError."""
    from blip2cli.host.storage import is_url

    if len(inputs) > 1:
        raise UsageError("blip2 chat is about one image", "Name one; /image PATH goes on to another.")
    (path,) = inputs
    if not is_url(path) and not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "is not there"
        raise UsageError(f"{path} {what}", "Name an image file.")
    return str(path)
