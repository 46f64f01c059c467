"""The command line's options, made from the settings records, which define their names, types, defaults and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from blip2cli.cli.config import Config
from blip2cli.settings import EngineSettings, GenerationSettings, InputSettings, Job, ModelSettings, Opt, OutputSettings

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Images, folders, globs, manifests, archives, URLs, or - for a list of paths on stdin.",
        show_default=False,
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks, and messages for developers.", rich_help_panel="Output")
]


def command(
    task: str, options: type, *others: type, argument: Any = Inputs, without: Collection[str] = ()
) -> Callable[[Callable[[Job], None]], Callable[..., None]]:
    """Turn a function of a Job into a Typer command with the options of the task and of the records it needs.

    Args:
        task: the task's name.
        options: the task's own settings record.
        others: the shared records whose options are offered; the others keep their defaults.
        argument: the command's arguments, which are the job's inputs.
        without: fields of those records that are not offered.
    """
    records = (options, *others)

    def wrap(function: Callable[[Job], None]) -> Callable[..., None]:
        def started(inputs: list[str] | None = None, config: Any = None, debug: bool = False, **given: Any) -> None:
            from blip2cli.cli.failures import GO_ON, START_ANEW, reported

            go_on = GO_ON if given.get("out") else START_ANEW
            with reported(debug, go_on if "resume" in given else ""):
                function(_job(task, records, tuple(inputs or ()), given))

        parameters = [inspect.Parameter("inputs", _KIND, default=None, annotation=argument)]
        offered = [parameter for record in records for parameter in _parameters(record)]
        parameters += [parameter for parameter in offered if parameter.name not in without]
        parameters.append(inspect.Parameter("config", _KIND, default=None, annotation=Config))
        parameters.append(inspect.Parameter("debug", _KIND, default=False, annotation=Debug))
        started.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by Typer
        started.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        started.__doc__ = function.__doc__
        started.__name__ = function.__name__
        return started

    return wrap


def run(job: Job) -> None:
    """Run the job with its engine. Exits with SOME_ERRORS if rows of the output have errors."""
    from blip2cli.cli.failures import SOME_ERRORS
    from blip2cli.run.engines import launch

    tally = launch(job)
    if tally is not None and tally.any_errors:
        raise typer.Exit(SOME_ERRORS)


_KIND = inspect.Parameter.KEYWORD_ONLY
SHARED = (InputSettings, ModelSettings, GenerationSettings, OutputSettings, EngineSettings)


def _job(task: str, records: tuple[type, ...], inputs: tuple[str, ...], values_by_option: dict[str, Any]) -> Job:
    def record(kind: type) -> Any:
        # an option of another record may have the same name
        names = {field.name for field in fields(kind)} if kind in records else ()
        values = {name: value for name, value in values_by_option.items() if name in names and value is not None}
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    settings = InputSettings(**{**vars(record(InputSettings)), "inputs": inputs})
    shared = (OutputSettings, ModelSettings, GenerationSettings, EngineSettings)
    return Job(task, record(records[0]), settings, *map(record, shared))


def _parameters(record: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(record, include_extras=True)
    described = [(field, hints[field.name]) for field in fields(record) if get_origin(hints[field.name]) is Annotated]
    return [_parameter(field, get_args(hint)[0], get_args(hint)[1], record.panel) for field, hint in described]


def _parameter(field: Field[Any], kind: Any, opt: Opt, panel: str) -> inspect.Parameter:
    flags = opt.flags or (f"--{field.name.replace('_', '-')}",)
    default = field.default if field.default is not MISSING else None
    if get_origin(kind) is tuple:
        kind, default = list[str] | None, None
    option = typer.Option(
        *flags,
        help=opt.help.replace("[", r"\["),  # a bracket is Rich's markup
        metavar=opt.metavar,
        min=opt.min,
        max=opt.max,
        envvar=opt.env,
        parser=opt.parse,
        rich_help_panel=panel,
        show_default=default is not None and default is not False,
    )
    return inspect.Parameter(field.name, _KIND, default=default, annotation=Annotated[kind, option])
