"""The command line's options, made from the settings records, which define their names,
types, defaults and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, replace
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from blip2cli.cli.config import Config
from blip2cli.cli.misplaced import check_words
from blip2cli.settings import (
    Arg,
    EngineSettings,
    GenerationSettings,
    InputSettings,
    Job,
    ModelSettings,
    Opt,
    Options,
    OutputSettings,
    TaskOptions,
)

R = TypeVar("R", bound=Options)

REQUIRED = inspect.Parameter.empty
"""The default of an option that must be given."""

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Images, folders, globs, manifests, archives, URLs, or - for a list of paths on stdin.",
        show_default=False,
    ),
]

SHARED = (InputSettings, ModelSettings, GenerationSettings, OutputSettings, EngineSettings)
"""All records that several commands share."""

ONLY_OF_RUNS = (
    "devices", "device_map", "resume", "update", "retry_errors", "commit_every", "existing", "dry_run", "summary",
)  # fmt: skip
"""Fields of shared records that only runs over a collection use."""


def command(
    task: str,
    options: type[TaskOptions],
    *others: type[Options],
    argument: Any = Inputs,
    without: Collection[str] = (),
) -> Callable[[Callable[[Job], bool]], Callable[..., None]]:
    """Turn a function of a Job into a Typer command with the options of the task and of
    the records it needs.

    The function returns whether all rows are without errors; if not, the command exits with SOME_ERRORS.

    Args:
        task: the task's name.
        options: the task's own settings record.
        others: the shared records whose options are offered; the others keep their defaults.
        argument: the command's arguments, which are the job's inputs.
        without: fields of those records that are not offered.
    """
    records = (options, *others)

    def wrap(function: Callable[[Job], bool]) -> Callable[..., None]:
        def started(inputs: list[str] | None = None, config: Any = None, debug: bool = False, **values: Any) -> None:
            from blip2cli.cli.failures import GO_ON, SOME_ERRORS, START_ANEW, reported

            go_on = GO_ON if values.get("out") else START_ANEW
            with reported(debug, go_on if "resume" in values else ""):
                check_words(task, tuple(inputs or ()))
                if not function(_job(task, records, tuple(inputs or ()), values)):
                    raise typer.Exit(SOME_ERRORS)

        parameters = [inspect.Parameter("inputs", _KIND, default=None, annotation=argument)]
        offered = [parameter for record in records for parameter in _parameters(record)]
        parameters += [parameter for parameter in offered if parameter.name not in without]
        parameters.append(inspect.Parameter("config", _KIND, default=None, annotation=Config))
        parameters.append(_debug("Output"))
        return _with_parameters(started, parameters, function)

    return wrap


def command_of(*records: type[Options], interrupted: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a function of records of options, made from what is typed, into a Typer
    command with all their options.

    Args:
        records: whose options are offered.
        interrupted: the hint after Ctrl-C.
    """

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        def started(debug: bool = False, **values: Any) -> None:
            from blip2cli.cli.failures import reported

            with reported(debug, interrupted):
                function(*(_record(kind, values) for kind in records))

        parameters = [parameter for record in records for parameter in _parameters(record)]
        parameters.append(_debug(records[-1].panel))
        return _with_parameters(started, parameters, function)

    return wrap


def _with_parameters(
    command: Callable[..., None], parameters: list[inspect.Parameter], function: Callable[..., Any]
) -> Callable[..., None]:
    """The command with these parameters, and with the function's name and help, as Typer
    reads them."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by Typer
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def run_job(job: Job) -> bool:
    """Run the job with its engine; returns whether all rows of the output are without errors."""
    from blip2cli.run.engines import launch

    tally = launch(job)
    return tally is None or not tally.any_errors


_KIND = inspect.Parameter.KEYWORD_ONLY


def _job(
    task: str, records: tuple[type[Options], ...], inputs: tuple[str, ...], values_by_option: dict[str, Any]
) -> Job:
    def record(kind: type[R]) -> R:
        return _record(kind, values_by_option if kind in records else {})  # others have options of the same names

    settings = replace(record(InputSettings), inputs=inputs)
    shared = (record(OutputSettings), record(ModelSettings), record(GenerationSettings), record(EngineSettings))
    options = _record(records[0], values_by_option)
    assert isinstance(options, TaskOptions)
    return Job(task, options, settings, *shared)


def _record(kind: type[R], values_by_option: dict[str, Any]) -> R:
    """A record with the values that are given."""
    names = [field.name for field in fields(kind)]
    values = {name: values_by_option[name] for name in names if values_by_option.get(name) is not None}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _parameters(record: type[Options]) -> list[inspect.Parameter]:
    """The options and arguments of a record; other fields are not set on the command
    line."""
    hints = get_type_hints(record, include_extras=True)
    described = [(field, get_args(hints[field.name])) for field in fields(record) if _is_option(hints[field.name])]
    return [_parameter(field, kind, mark, record.panel) for field, (kind, mark) in described]


def _is_option(hint: Any) -> bool:
    return get_origin(hint) is Annotated and isinstance(get_args(hint)[1], (Opt, Arg))


def _parameter(field: Field[Any], kind: Any, mark: Opt | Arg, panel: str | None) -> inspect.Parameter:
    default = REQUIRED if field.default is MISSING else field.default
    if isinstance(default, tuple):
        default = None  # the record's own default is used
    parsed_at_once = isinstance(mark, Opt) and mark.parse is not None
    if get_origin(kind) is tuple and not parsed_at_once:
        kind = list[str] if default is REQUIRED else list[str] | None
    shown = _argument(mark) if isinstance(mark, Arg) else _option(field.name, mark, default, panel)
    return inspect.Parameter(field.name, _KIND, default=default, annotation=Annotated[kind, shown])


def _argument(arg: Arg) -> Any:
    return typer.Argument(metavar=arg.metavar, help=arg.help, show_default=False)


def _option(name: str, opt: Opt, default: Any, panel: str | None) -> Any:
    flags = opt.flags or (f"--{name.replace('_', '-')}",)
    return typer.Option(
        *flags,
        help=opt.help.replace("[", r"\["),  # a bracket is Rich's markup
        metavar=opt.metavar,
        min=opt.min,
        max=opt.max,
        envvar=opt.env,
        parser=opt.parse,
        rich_help_panel=panel,
        show_default=not any(default is nothing for nothing in (None, False, REQUIRED)),
    )


def _debug(panel: str | None) -> inspect.Parameter:
    opt = Opt("Show tracebacks, and messages for developers.", ("--debug",))
    annotation = Annotated[bool, _option("debug", opt, False, panel)]
    return inspect.Parameter("debug", _KIND, default=False, annotation=annotation)
