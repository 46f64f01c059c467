"""Text that other programs wrote: encodings, quotation marks and separators are read, or refused with the line."""

import codecs
import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from blip2cli.errors import UsageError
from blip2cli.inputs import ColumnChoice, Sources, open_source
from blip2cli.inputs.encoding import CHUNK, LINE
from blip2cli.records import ImageRef, Row
from blip2cli.tasks.template import texts_in_file
from tests.conftest import Typed

TABLE = "image,artist\na.png,Müller\nb.png,Łódź\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(name: str, **columns: object) -> Sources:
    return open_source([name], ColumnChoice(**columns))  # type: ignore[arg-type]


def rows(name: str, **columns: object) -> list[Row]:
    found = list(source(name, **columns).rows())
    assert source(name, **columns).count() in (None, len(found))
    return found


def read(name: str, text: str | bytes, **columns: object) -> list[Row]:
    """The rows of a file of this content."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return rows(name, **columns)


def refused(name: str, text: str | bytes, **columns: object) -> UsageError:
    with pytest.raises(UsageError) as error:
        read(name, text, **columns)
    assert "\n" not in error.value.message + error.value.hint
    return error.value


UNICODE = {
    "utf-8": (b"", "utf-8"),
    "utf-8 with its mark": (codecs.BOM_UTF8, "utf-8"),
    "utf-16 le": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16 be": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "utf-16 le without a mark": (b"", "utf-16-le"),
    "utf-16 be without a mark": (b"", "utf-16-be"),
    "utf-32": (codecs.BOM_UTF32_LE, "utf-32-le"),
}
LINES = '{"image": "a.png", "artist": "Müller"}\n{"image": "b.png", "artist": "Łódź"}\n'


@pytest.mark.parametrize("form", UNICODE)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".json"])
def test_every_form_of_unicode_is_read(form: str, suffix: str) -> None:
    mark, encoding = UNICODE[form]
    data = mark + (LINES if "json" in suffix else TABLE).encode(encoding)
    found = read(f"m{suffix}", gzip.compress(data) if suffix.endswith(".gz") else data)
    assert [(row.name, row.columns["artist"]) for row in found] == [("a.png", "Müller"), ("b.png", "Łódź")]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_other_encodings_are_refused_with_the_line_or_read_when_named(suffix: str) -> None:
    text = TABLE.replace("Łódź", "x").replace(",", "\t" if suffix == ".tsv" else ",").encode("windows-1252")
    data = gzip.compress(text) if suffix.endswith(".gz") else text
    error = refused(f"m{suffix}", data)
    assert error.message == f"cannot read m{suffix}: it is not UTF-8: line 2 has the byte 0xfc"
    assert "--encoding windows-1252" in error.hint
    assert read(f"m{suffix}", data, encoding="windows-1252")[0].columns["artist"] == "Müller"


def test_the_line_is_right_far_into_a_file() -> None:
    before = b"a.png,\xc3\xa9\n" * CHUNK
    assert f"line {CHUNK + 2} has the byte 0xe9" in refused("m.csv", b"image,x\n" + before + b"b.png,\xe9t\n").message
    cut = ("image,x\n" + "a.png,ü\n" * CHUNK).encode("utf-16")[:-1]
    assert f"it is not utf-16: line {CHUNK + 1} has" in refused("m.csv", cut).message


def test_a_json_line_in_another_encoding_is_an_error_row_or_read_when_named() -> None:
    text = '{"image": "a.png"}\n{"image": "b.png", "x": "ü"}\n'.encode("windows-1252")
    assert [row.error and str(row.error) for row in read("m.jsonl", text)] == [None, "unreadable: line 2 is not UTF-8"]
    assert read("m.jsonl", text, encoding="cp1252")[1].columns["x"] == "ü"
    assert "not UTF-8: line 1 has the byte 0xfc" in refused("m.jsonl", text.splitlines(keepends=True)[1]).message
    assert "not UTF-8: line 1" in refused("m.json", '[{"image": "ü.png"}]'.encode("latin-1")).message
    assert read("m.json", '[{"image": "ü.png"}]'.encode("latin-1"), encoding="latin-1")[0].name == "ü.png"


def test_a_mark_says_more_than_the_named_encoding() -> None:
    assert (
        read("m.csv", codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"), encoding="windows-1252")[0].columns["artist"]
        == "Müller"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize(("suffix", "text"), [(".csv", TABLE), (".jsonl", LINES), (".txt", "a.png\n")])
def test_a_named_encoding_that_needs_a_mark_is_refused_without_one(suffix: str, text: str, encoding: str) -> None:
    message = refused(f"m{suffix}", text, encoding=encoding).message
    assert message.startswith(f"cannot read m{suffix}: it is not {encoding}: ")
    assert len(read(f"m{suffix}", text.encode(encoding), encoding=encoding)) == text.count(".png")


@pytest.mark.parametrize("name", ["latinum", "base64", "rot13", "a\0b", ""])
def test_an_encoding_that_is_none_is_named(name: str) -> None:
    assert "is not a known text encoding" in refused("m.csv", TABLE, encoding=name).message


def test_files_of_questions_are_text_in_unicode() -> None:
    Path("q.txt").write_bytes("Was ist das?\r\nEin\u2028Müller\u0085?\n".encode("utf-16"))
    assert texts_in_file("--questions", "q.txt") == ("Was ist das?", "Ein\u2028Müller\u0085?")
    Path("q.txt").write_bytes(b"what?\nM\xfcller?\n")
    with pytest.raises(UsageError, match=r"cannot read --questions q\.txt: it is not UTF-8: line 2 has the byte 0xfc"):
        texts_in_file("--questions", "q.txt")


@pytest.mark.parametrize("text", ["image;artist\na.png;x, y\n", "sep=;\r\nimage;artist\r\na.png;x, y\r\n"])
def test_semicolons_between_cells(text: str) -> None:
    (row,) = read("m.csv", text)
    assert (row.name, dict(row.columns)) == ("a.png", {"artist": "x, y"})


def test_the_image_column_says_what_stands_between_cells() -> None:
    assert read("a.csv", "image\tnote; long\na.png\tx,y\n")[0].columns == {"note; long": "x,y"}
    assert read("b.csv", "note; long,image\nx;y,a.png\n")[0].columns == {"note; long": "x;y"}
    assert read("c.tsv", "image,note\na.png,x\n")[0].columns == {"note": "x"}
    assert read("d.csv", "photo;note\na.png;x\n", image="photo")[0].columns == {"note": "x"}
    assert str(read("e.csv", "image\na;b,c.png\n")[0].error) == "unreadable: row 1 has 2 cells, not 1"
    assert "It has: photo, note." in refused("f.csv", "photo;note\na.png;x\n").hint


@pytest.mark.parametrize(
    "text",
    [
        'image,note\na.png,"5 inch\nb.png,ok\nc.png,fine\n',
        'image,note\na.png,"5 inch\nb.png,ok\nc.png,6" wide\n',
        'image,note\na.png,"5 inch\nb.png,ok\nc.png,"6 inch\n',
        'image,note\na.png,"5 inch\nb.png,ok\nc.png,"\n',
        'note,image\n"5 inch,a.png\nok,b.png\n6",c.png\n',
    ],
)
def test_a_quotation_mark_that_is_not_closed_is_refused_with_its_line(text: str) -> None:
    assert refused("m.csv", text).message == "m.csv: a quotation mark in line 2 is not closed"


def test_a_quotation_mark_that_is_not_closed_in_the_last_line_or_a_long_file() -> None:
    assert "line 3" in refused("m.csv", 'image,note\na.png,x\nb.png,"5 inch').message
    assert "line 2 is not closed" in refused("m.csv", 'image,n\na.png,"' + "b.png,ok\n" * 2_500_000).message


def test_well_formed_cells_of_several_lines_are_kept() -> None:
    text = 'image,note\na.png,"one, ""two""\nthree, four\n\nfive"\nb.png,""\n'
    assert [row.columns["note"] for row in read("m.csv", text)] == ['one, "two"\nthree, four\n\nfive', ""]


def test_a_line_that_is_not_as_csv_has_it_is_an_error_row() -> None:
    found = read("m.csv", 'image,note\na.png,"5" wide\nb.png,x\0y\nc.png,5" wide\nd.png\ne.png,1,2\n')
    assert [row.error and str(row.error) for row in found] == [
        "unreadable: line 2 has text after a closing quotation mark",
        "unreadable: line 3 holds NUL bytes",
        None,
        None,
        "unreadable: row 5 has 3 cells, not 2",
    ]
    assert [dict(row.columns) for row in found[2:4]] == [{"note": '5" wide'}, {"note": None}]
    assert "line 1 holds NUL bytes" in refused("n.csv", "image,no\0te\na.png,x\n").message


def test_quotation_marks_in_a_table_with_tabs_are_text_where_its_rows_show_it() -> None:
    found = read("m.tsv", 'caption\tpath\n"a quote\ta.png\n"all of it"\tb.png\nends" here\tc.png\n')
    assert [row.name for row in found] == ["a.png", "b.png", "c.png"]
    assert [row.columns["caption"] for row in found] == ['"a quote', '"all of it"', 'ends" here']
    closing = read("m.tsv", 'caption\tpath\n"a\ta.png\nb"\tb.png\n')
    assert [row.columns["caption"] for row in closing] == ['"a', 'b"']


def test_quotation_marks_in_a_table_with_tabs_quote_where_its_rows_show_that() -> None:
    found = read("m.tsv", 'path\tcaption\na.png\t"a\ttab"\nb.png\t"two\nlines"\nc.png\t"he said ""hi"""\n')
    assert [row.columns["caption"] for row in found] == ["a\ttab", "two\nlines", 'he said "hi"']
    assert "line 3 is not closed" in refused("m.tsv", 'path\tcaption\nx.png\na.png\t"5 inch\nb.png\tok\n').message


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_compressed_file_cut_short_is_refused_and_not_read_in_part(
    compress: Callable[[bytes], bytes], whole: int
) -> None:
    numbers = random.Random(0)
    lines = "".join(f"a.png,{numbers.getrandbits(400)}\n" for _ in range(2000))
    packed = compress(f"image,number\n{lines}".encode())
    assert len(read("m.csv.gz", packed)) == 2000
    for end in (8, len(packed) // 2, len(packed) - 1):
        error = refused("m.csv.gz", packed * whole + packed[:end])
        assert error.message.startswith("cannot read m.csv.gz: the compressed data are damaged: ")
        assert error.hint == "Copy or download the file again."


def test_lines_without_end_take_no_memory_and_are_named() -> None:
    with gzip.open("m.csv.gz", "wb", 1) as file:
        file.write(b"image,x\na.png," + b"1," * (LINE // 2))
    with pytest.raises(UsageError, match="line 2 is longer than 67,108,864 characters"):
        source("m.csv.gz")
    with gzip.open("m.jsonl.gz", "wb", 1) as file:
        file.write(b'{"image": "a.png"}\n"' + b"1" * LINE + b'"\n{"image": "b.png"}\n')
    found = rows("m.jsonl.gz")
    assert [row.error and str(row.error) for row in found] == [
        None,
        "unreadable: line 2 is longer than 67,108,864 bytes",
        None,
    ]
    assert found[2].name == "b.png"


def test_a_text_file_lists_paths_and_urls() -> None:
    Path("lists").mkdir()
    Path("lists/a.png").touch()
    text = b"\xef\xbb\xbfa.png\r\n\r\nsub/caf\xe9.png\nhttp://x/y.jpg"
    first, second, third = read("lists/all.txt", text)
    assert (first.name, first.image) == ("a.png", ImageRef(path="lists/a.png"))
    assert (second.name, second.image) == ("sub/caf\\xe9.png", ImageRef(path=os.fsdecode(b"lists/sub/caf\xe9.png")))
    assert str(third.error) == "unsupported: a URL in a manifest; --allow-remote fetches it"
    assert rows("lists/all.txt", allow_remote=True)[2].image == ImageRef(url="http://x/y.jpg")
    assert rows("lists/all.txt", root="elsewhere" if Path("elsewhere").mkdir() else "lists")[0].image is not None
    assert read("w.txt", "ü.png\n".encode("utf-16"))[0].name == "ü.png"


def test_a_text_beside_an_image_is_not_a_list() -> None:
    Path("a.png").touch()
    assert "its first line names no image" in refused("a.txt", "a red circle\n").message
    assert [row.name for row in open_source(["*"], ColumnChoice()).rows()] == ["a.png"]
    Path("list.txt").write_text("a.png\na.png\n")
    Path("a.txt").unlink()
    assert len(list(open_source(["*.txt"], ColumnChoice()).rows())) == 2


def test_exit_code_2_and_two_lines_before_anything_is_written(typed: Callable[..., Typed]) -> None:
    Path("m.csv").write_bytes(b"image,artist\nred-circle.png,M\xfcller\n")
    ran = typed("caption", "m.csv", "--out", "o.jsonl")
    assert ran.code == 2 and len(ran.err.splitlines()) == 2 and not Path("o.jsonl").exists()
