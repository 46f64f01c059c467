"""The condition of `--where`: an expression in SQL, which DuckDB applies to rows, and which can do nothing else.

It is parsed before it is run. Only expressions over the columns are let through: no statements, subqueries, tables or
functions that change something or look outside. DuckDB itself may open no file, load no extension, and change no
setting.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from blip2cli.errors import UsageError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "OPERATOR", "TYPE",
}  # fmt: skip
"""Classes of expressions, in DuckDB's words, that a condition may have."""

MACROS = ("nullif", "split_part", "fmod", "fdiv", "if", "days_in_month", "date_add", "array_to_string")
"""Functions that DuckDB defines by others, and that may be used, with those that begin with list_ and array_."""

OUTSIDE = {
    "getenv", "current_setting", "getvariable", "version", "current_database", "current_schema", "current_schemas",
    "current_query", "current_localtime", "current_localtimestamp",
    "current_connection_id", "txid_current", "in_search_path", "write_log",
}  # fmt: skip
"""Functions that look outside or change something, and that some versions of DuckDB call consistent all the same."""

UNLIMITED = {"lpad", "rpad", "format", "printf"}
"""Functions whose results DuckDB makes as long as they are asked for, beyond its memory limit."""

SETTINGS = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_unsigned_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "memory_limit": "1GB",
    "threads": "1",
    "lock_configuration": "true",
}
"""DuckDB reads and writes no files, and keeps these settings."""

NO_COLUMN = 'Referenced column "{}" is not there; texts are in single quotation marks'

LIST_IN_TEXT = (
    "In CSV, lists are texts: list_contains(from_json(NAME, '[\"VARCHAR\"]'), 'x'), json_array_length(NAME) > 1."
)
"""What to do where a function takes no texts, as those of lists do not."""

QUERY = "SELECT CAST((\n{}\n) AS BOOLEAN) FROM results"


class Condition:
    """A condition over columns. Raises UsageError for one that is not an expression over them.

    Args:
        text: the expression.
        names: the columns that it may name.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names = text, names
        self._connection = _connection()
        try:
            expression = self._expression(text)
        except RecursionError:
            raise self._refused("it is nested too deeply") from None
        self._check(expression)
        self.columns = self._columns(expression)

    def met(self, table: pa.Table) -> list[bool | None]:
        """Whether each row of a table, which has `columns`, meets the condition. Raises UsageError."""
        import duckdb

        try:
            self._connection.register("results", table)
            found = self._connection.execute(QUERY.format(self.text)).fetchall()
        except duckdb.Error as error:
            raise self._failed(error) from None
        finally:
            self._connection.unregister("results")
        return [met for (met,) in found]

    def _expression(self, text: str) -> Any:
        """The parsed expression. Raises UsageError for anything else, RecursionError if it is nested deeply."""
        tree = self._parsed(text)
        if _without_expression(tree) != _without_expression(self._parsed("true")):
            raise self._refused("it is more than an expression")
        return tree["statements"][0]["node"]["select_list"][0]

    def _parsed(self, text: str) -> dict[str, Any]:
        import duckdb

        try:
            answer = self._connection.execute("SELECT json_serialize_sql(?)", [QUERY.format(text)]).fetchone()
        except duckdb.Error as error:
            raise self._failed(error) from None
        assert answer is not None
        tree: dict[str, Any] = json.loads(answer[0])
        if tree["error"]:
            if int(tree.get("position", 0)) >= QUERY.index("{}") + len(text.encode()):
                raise self._refused("syntax error at its end")
            raise self._refused(one_line(tree["error_message"]))
        return tree

    def _check(self, expression: Any) -> None:
        """Check that an expression only computes something from columns. Raises UsageError."""
        allowed = _functions(self._connection)
        for node in _nodes(expression):
            kind = node.get("class")
            if kind is not None and kind not in EXPRESSIONS:
                raise self._refused(f"a {str(kind).lower()} is not allowed in it")
            name = node.get("function_name")
            if name is not None and str(name).lower() not in allowed:
                raise self._refused(f"{name} is not a function that it may use")

    def _columns(self, expression: Any) -> list[str]:
        """The columns that an expression names, in any case; that of the image where it names none."""
        words = {
            str(word)
            for node in _nodes(expression)
            if node.get("class") == "COLUMN_REF"
            for word in node["column_names"]
        }
        self._check_names(expression)
        others = {word.lower() for word in words.difference(self.names)}
        named = [name for name in self.names if name in words or name.lower() in others]
        alike = [name for name, times in Counter(map(str.lower, named)).items() if times > 1]
        if alike:
            raise self._refused(f"several columns are called {alike[0]}, in other capitals")
        return named or [self.names[0]]

    def _check_names(self, expression: Any) -> None:
        """Check that names are columns', and not of what DuckDB knows, such as current_date. Raises UsageError."""
        parameters = {
            reference["column_names"][0].lower()
            for node in _nodes(expression)
            if node.get("class") == "LAMBDA"
            for reference in _nodes(node["lhs"])
            if reference.get("class") == "COLUMN_REF"
        }
        known = {*map(str.lower, self.names), *parameters}
        for node in _nodes(expression):
            if node.get("class") != "COLUMN_REF":
                continue
            first, *inner = node["column_names"]
            if first.lower() not in known and not (first.lower() == "results" and inner):
                raise self._refused(NO_COLUMN.format(first))

    def _failed(self, error: Exception) -> UsageError:
        import duckdb

        words = str(error).partition("\n\nLINE")[0].partition(": ")
        said = one_line(words[2] or words[0])
        if isinstance(error, duckdb.BinderException) and "column" in said:
            name = said.partition('"')[2].partition('"')[0]
            return self._refused(NO_COLUMN.format(name))
        if isinstance(error, duckdb.ConversionException):
            return UsageError(f"--where {self.text!r}: {said}", "try_cast(NAME as double) is null for other texts.")
        if said.startswith("No function matches") and "VARCHAR" in said:
            return UsageError(f"--where {self.text!r}: {said}", LIST_IN_TEXT)
        return self._refused(said)

    def _refused(self, why: str) -> UsageError:
        columns = ", ".join(self.names)
        return UsageError(f"--where {self.text!r}: {why}", f"Give a condition in SQL over the columns: {columns}.")


def _connection() -> Any:
    """A DuckDB that can do nothing but compute. Raises UsageError where it is not installed."""
    try:
        import duckdb
    except ImportError:
        raise UsageError("--where needs the package duckdb", "Install it: pip install 'blip2cli[select]'") from None
    return duckdb.connect(":memory:", config=SETTINGS)


def _functions(connection: Any) -> set[str]:
    """The functions whose value depends on nothing but their arguments."""
    rows = connection.execute(
        "SELECT function_name, function_type, bool_and(coalesce(stability = 'CONSISTENT', true)) "
        "FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro') GROUP BY ALL"
    ).fetchall()
    scalar = {name.lower() for name, kind, consistent in rows if kind == "scalar" and consistent} - OUTSIDE - UNLIMITED
    named = {name.lower() for name, kind, _ in rows if kind == "macro" and name.startswith(("list_", "array_"))}
    return {*scalar, *named, *MACROS}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects in a tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _without_expression(tree: dict[str, Any]) -> Any:
    """What surrounds the expression in a parsed query, without the places of words in its text."""

    def bare(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: bare(value) for name, value in node.items() if not name.startswith("query_location")}
        return [bare(part) for part in node] if isinstance(node, list) else node

    copy = bare(tree)
    for statement in copy["statements"]:
        for column in statement["node"].get("select_list", []):
            column.pop("child", None)
    return copy
