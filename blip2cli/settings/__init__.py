"""The settings of a run: small frozen records, validated when they are made; the command line is generated from them.

Each field carries an `Opt` with its help text, so that name, type, default and help are in one place. A record's
`validate` names the option at fault. `Job.fingerprint` is what a resumed run is compared by.
"""

from blip2cli.settings.devices import check_device, devices_named
from blip2cli.settings.job import Job, TaskOptions, absolute
from blip2cli.settings.option import AllowPrivate, Arg, Opt, Options, check_page, check_private
from blip2cli.settings.shared import (
    DEFAULT_MODEL,
    DEFAULT_RETRIEVAL_MODEL,
    EngineSettings,
    FormatName,
    GenerationSettings,
    InputSettings,
    Kind,
    ModelName,
    ModelSettings,
    OutputSettings,
    place,
)

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_RETRIEVAL_MODEL",
    "AllowPrivate",
    "Arg",
    "EngineSettings",
    "FormatName",
    "GenerationSettings",
    "InputSettings",
    "Job",
    "Kind",
    "ModelName",
    "ModelSettings",
    "Opt",
    "Options",
    "OutputSettings",
    "TaskOptions",
    "absolute",
    "check_device",
    "check_page",
    "check_private",
    "devices_named",
    "place",
]
