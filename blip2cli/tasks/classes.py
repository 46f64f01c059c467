"""The classes of `blip2 classify`: their names, read and checked, and the texts that the model reads for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blip2cli.errors import UsageError
from blip2cli.records import Row
from blip2cli.tasks.template import Template, texts_in_file

COLUMNS = ("class", "label", "name")
"""Columns of a table that may hold the classes if --class-column is not given."""

EACH_ALONE = "Give each class by itself: --class cat --class dog"

NO_ROW = Row(0, "")


def class_names(typed: Sequence[str], file: Path | None, column: str | None) -> tuple[str, ...]:
    """The names of the classes, those typed first. Raises UsageError.

    Args:
        typed: those of --class.
        file: a text file with one on each line, or a table.
        column: the table's column.
    """
    if any(not name.strip() for name in typed):
        raise UsageError("--class is empty", "Give a name, for example --class cat.")
    names = (*(name.strip() for name in typed), *(() if file is None else _names_in(file, column)))
    if not names:
        raise UsageError("no classes are given", "For example: --class cat --class dog, or --classes FILE.")
    if len(names) == 1:
        raise UsageError(
            f"there is only one class, {names[0]!r}",
            EACH_ALONE
            if "," in names[0]
            else "Give at least two. To score how well one text matches: blip2 match --text",
        )
    check_different(names, names)
    return names


def check_different(names: Sequence[str], keys: Sequence[object]) -> None:
    """Check that no two classes have the same key. Raises UsageError with their names."""
    first: dict[object, str] = {}
    for name, key in zip(names, keys, strict=True):
        if key not in first:
            first[key] = name
        elif first[key] == name:
            raise UsageError(f"class {name!r} is given twice", "Give each class once.")
        else:
            raise UsageError(
                f"classes {first[key]!r} and {name!r} are the same text to the model",
                "Use names that differ in more than capitals and spaces.",
            )


def class_templates(texts: Sequence[str]) -> list[Template]:
    """The templates of --template, checked. Raises UsageError."""
    templates = [Template(text, "--template") for text in texts]
    for at, template in enumerate(templates):
        if template.names:
            raise UsageError(
                f"--template {template.text!r} names the column {template.names[0]}",
                "The texts of classes are the same for every image: {} is the class.",
            )
        if not template.has_place:
            raise UsageError(
                f"--template {template.text!r} does not contain {{}}", "Write {} for the class: 'a photo of a {}'."
            )
        if template.text in texts[:at]:
            raise UsageError(f"--template {template.text!r} is given twice", "Give each template once.")
    return templates


def class_texts(name: str, templates: Sequence[Template]) -> list[str]:
    """The texts of a class: its name, or each template with it."""
    return [template.fill(NO_ROW, name) for template in templates] or [name]


def _names_in(file: Path, column: str | None) -> tuple[str, ...]:
    """The classes of a file. Raises UsageError."""
    from blip2cli.inputs import FILE_FORMATS, format_of
    from blip2cli.inputs.encoding import SAVE_AS_UTF_8, NotTextFile

    if not file.is_file():
        raise UsageError(f"no such file: --classes {file}", f"Give a file of names. {EACH_ALONE}")
    file_format = format_of(str(file))
    if file_format in (None, FILE_FORMATS["list"]):
        if column is not None:
            raise UsageError(f"--class-column needs a table, and {file} is a text file", "Leave it out.")
        return texts_in_file("--classes", file)
    if file_format is None or file_format.contents != "table":
        raise UsageError(
            f"--classes {file} is neither a text file nor a table",
            "Give a .txt file with one class on each line, or CSV, JSON lines or Parquet.",
        )
    try:
        return _names_in_table(file, column)
    except NotTextFile as error:  # whose hint is for inputs
        raise UsageError(f"cannot read --classes {file}: it is {error.fault}", SAVE_AS_UTF_8) from None


def _names_in_table(file: Path, column: str | None) -> tuple[str, ...]:
    from blip2cli.inputs import ColumnChoice, open_source

    chosen = column or _likely_column(file)
    choice = ColumnChoice(text=chosen, text_required=True, text_option="--class-column", image_required=False)
    rows = list(open_source([str(file)], choice).rows())
    wrong = next((row.error for row in rows if row.error is not None and row.error.kind != "missing"), None)
    if wrong is not None:
        raise UsageError(
            f"cannot read --classes {file}: {wrong.detail}", "Give a table in UTF-8 with a name in each row."
        )
    empty = next((at for at, row in enumerate(rows, 1) if not (row.text or "").strip()), None)
    if empty is not None:
        raise UsageError(f"--classes {file}: column {chosen} is empty in row {empty}", "Give each class a name.")
    if not rows:
        raise UsageError(f"--classes {file} is empty", "Give a file with the names of the classes.")
    return tuple((row.text or "").strip() for row in rows)


def _likely_column(file: Path) -> str:
    """The first of the usual columns that a table has, else its only one."""
    from blip2cli.inputs import ColumnChoice, open_source

    names = open_source([str(file)], ColumnChoice(image_required=False)).column_names()
    usual = [name for name in COLUMNS if name in names]
    return (usual or (names if len(names) == 1 else COLUMNS))[0]
