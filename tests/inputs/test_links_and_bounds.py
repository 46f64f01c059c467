"""Links in archives lead to what they name, and no archive has more memory or time than it is given."""

import gzip
import io
import stat
import subprocess
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from blip2cli.errors import UsageError
from blip2cli.images.decode import bytes_of
from blip2cli.inputs import ColumnChoice, archive, open_source
from blip2cli.inputs import tar as tar_input
from blip2cli.inputs.archive import Member, samples_in
from blip2cli.inputs.links import BrokenLink, Links
from blip2cli.records import ImageRef, Row

RED, BLUE = b"red " * 300, b"blue " * 300

Entry = tuple[str, bytes | str, bytes]
"""A member's name, what it holds or leads to, and its type."""

FILE, HARD, SYMBOLIC, FOLDER = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tar(name: str, entries: list[Entry]) -> str:
    with tarfile.open(name, f"w:{'gz' if name.endswith('gz') else ''}") as packed:  # type: ignore[call-overload]
        for member, content, kind in entries:
            info = tarfile.TarInfo(member)
            info.type = kind
            if isinstance(content, str):
                info.linkname = content
            else:
                info.size = len(content)
            packed.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return name


def zipped(name: str, entries: list[Entry]) -> str:
    with zipfile.ZipFile(name, "w") as packed:
        for member, content, kind in entries:
            info = zipfile.ZipInfo(member)
            mode = stat.S_IFLNK if kind == SYMBOLIC else stat.S_IFREG
            info.external_attr = (mode | 0o644) << 16
            packed.writestr(info, content)
    return name


def rows(*names: str) -> list[Row]:
    return list(open_source(names, ColumnChoice()).rows())


def found(name: str) -> dict[str, bytes | str | None]:
    """What each member of an archive is read as: its bytes, or its error."""
    return {
        row.name.removeprefix(f"{name}/"): str(row.error) if row.error else bytes_of(row.image) if row.image else None
        for row in rows(name)
    }


OUT, NOTHING = "missing: a link that leads out of the archive", "missing: a link to a file that is not in the archive"
ROUND, TO_FOLDER = "missing: a link that leads back to itself", "missing: a link to a folder"

SYMBOLIC_LINKS: list[Entry] = [
    ("blobs/red", RED, FILE),
    ("./p/forward.png", "later.png", SYMBOLIC),
    ("p/later.png", BLUE, FILE),
    ("p/up.png", "../blobs/./red", SYMBOLIC),
    ("p/chain.png", "up.png", SYMBOLIC),
    ("alias", "p", SYMBOLIC),
    ("p/through.png", "../alias/later.png", SYMBOLIC),
    ("p/one.png", "two.png", SYMBOLIC),
    ("p/two.png", "one.png", SYMBOLIC),
    ("p/out.png", "../../x.png", SYMBOLIC),
    ("p/root.png", "/etc/passwd", SYMBOLIC),
    ("p/none.png", "gone.png", SYMBOLIC),
]

WHERE_THEY_LEAD = {
    "./p/forward.png": BLUE, "p/later.png": BLUE, "p/up.png": RED, "p/chain.png": RED, "p/through.png": BLUE,
    "p/one.png": ROUND, "p/two.png": ROUND, "p/out.png": OUT, "p/root.png": OUT, "p/none.png": NOTHING,
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_symbolic_links_lead_to_members(name: str) -> None:
    (zipped if name == "a.zip" else tar)(name, SYMBOLIC_LINKS)
    assert found(name) == WHERE_THEY_LEAD


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_hard_links_lead_to_members(name: str) -> None:
    entries: list[Entry] = [
        ("./d", b"", FOLDER), ("./d/1.png", RED, FILE), ("./d/2.png", "./d/1.png", HARD), ("d/3.png", "d/2.png", HARD),
        ("d/4.png", "2.png", SYMBOLIC), ("d/5.png", "d", HARD), ("d/6.png", "elsewhere/1.png", HARD),
        ("d/7.png", "d/7.png", HARD),
    ]  # fmt: skip
    expected = {"./d/1.png": RED, "./d/2.png": RED, "d/3.png": RED, "d/4.png": RED}
    assert found(tar(name, entries)) == {**expected, "d/5.png": TO_FOLDER, "d/6.png": NOTHING, "d/7.png": ROUND}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_a_text_may_be_a_link_too(name: str) -> None:
    entries: list[Entry] = [
        ("a.png", RED, FILE),
        ("a.txt", b"said", FILE),
        ("b.png", BLUE, FILE),
        ("b.txt", "a.txt", SYMBOLIC),
    ]
    (zipped if name == "a.zip" else tar)(name, entries)
    assert [row.columns["txt"] for row in rows(name)] == ["said", "said"]


def test_links_of_a_plain_tar_are_read_in_it_by_the_workers() -> None:
    _, link = rows(tar("a.tar", [("a.png", RED, FILE), ("b.png", "a.png", HARD)]))
    assert link.image == ImageRef(path="a.tar", offset=512, size=len(RED))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_however_many_links_there_are_an_archive_is_walked_three_times(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[Entry] = [(f"{number:03}.png", b"%d" % number, FILE) for number in range(50)]
    entries += [(f"{number}-link.png", f"{(number * 7) % 50:03}.png", SYMBOLIC) for number in range(50)]
    tar(name, entries)
    source = open_source([name], ColumnChoice())
    walks: list[str] = []
    opened = tar_input._opened
    monkeypatch.setattr(tar_input, "_opened", lambda name: walks.append(name) or opened(name))
    linked = [bytes_of(row.image) for row in list(source.rows())[50:] if row.image]
    assert linked == [b"%d" % ((number * 7) % 50) for number in range(50)] and len(walks) == 3


def test_links_before_damage_still_lead_to_what_is_whole() -> None:
    entries: list[Entry] = [("a.png", RED, FILE), ("b.png", "a.png", HARD), ("c.png", "d.png", SYMBOLIC)]
    tar("a.tar.gz", [*entries, ("d.png", bytes(100_000), FILE)])
    packed = gzip.decompress(Path("a.tar.gz").read_bytes())
    Path("a.tar.gz").write_bytes(gzip.compress(packed[:60_000]))
    said = found("a.tar.gz")
    assert said["a.png"] == said["b.png"] == RED
    assert str(said["c.png"]).startswith("truncated: ") and str(said["a.tar.gz#3"]).startswith("truncated: ")


def test_links_to_more_than_is_kept_are_error_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_input, "MAX_LINKED", 2000)
    entries: list[Entry] = [("a.png", RED, FILE), ("b.png", BLUE, FILE)]
    tar("a.tar.gz", [*entries, ("c.png", "a.png", HARD), ("d.png", "b.png", HARD)])
    said = found("a.tar.gz")
    assert said["c.png"] == RED and str(said["d.png"]).startswith("too-large: links lead to more than")


def test_names_of_links_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blip2cli.inputs.links.MOST_BYTES", 20)
    links = Links()
    links.add("a.png", "x.png", hard=False)
    links.add("a" * 20, "x.png", hard=False)
    assert links.target("a.png") == "x.png" and links.target("a" * 20) == "a" * 20
    with pytest.raises(BrokenLink):
        links.target("../a.png")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, b"V"])
def test_what_is_named_as_an_image_and_is_no_file_is_an_error_row(kind: bytes) -> None:
    assert found(tar("a.tar", [("a.png", RED, FILE), ("b.png", "", kind)]))["b.png"] == "unreadable: not a regular file"


def header(name: str, size: int, kind: bytes = FILE) -> bytes:
    """A header that says any size, negative or huge."""
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    raw[124:136] = (size % 256**12).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


GOOD = header("a.png", len(RED)) + padded(RED)

HOSTILE = {
    "a size below zero": header("b.png", -512),
    "a large size below zero": header("b.png", -(1 << 40)),
    "a size that no file has": header("b.png", 1 << 62),
    "a long name of gigabytes": header("long", 1 << 33, tarfile.GNUTYPE_LONGNAME),
    "a pax header of gigabytes": header("pax", 1 << 33, tarfile.XHDTYPE),
    "a global pax header of gigabytes": header("pax", 1 << 33, tarfile.XGLTYPE),
    "a pax size below zero": header("pax", 20, tarfile.XHDTYPE) + padded(b"20 size=-1000000000\n") + header("b.png", 9),
    "long names without end": b"".join(
        header("long", 4, tarfile.GNUTYPE_LONGNAME) + padded(b"name") for _ in range(900)
    ),
    "a sparse map without end": header("pax", 70, tarfile.XHDTYPE)
    + padded(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.name=b.png\n")
    + header("b.png", 4 << 20)
    + b"999999999\n" + b"%031d\n" % 0 * (4 << 15),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("what", HOSTILE)
def test_headers_that_are_made_to_harm_end_an_archive_with_an_error_row(what: str, packed: bool) -> None:
    name = "a.tar.gz" if packed else "a.tar"
    data = GOOD + HOSTILE[what] + bytes(1024)
    Path(name).write_bytes(gzip.compress(data, 1) if packed else data)
    tracemalloc.start()
    said = found(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said.pop("a.png") == RED and peak < 24 << 20
    assert len(said) in (1, 2) and all(str(error).startswith(("truncated: ", "too-large: ")) for error in said.values())


def test_an_archive_that_begins_with_such_a_header_is_refused() -> None:
    Path("a.tar").write_bytes(header("a.png", -512) + bytes(1024))
    with pytest.raises(UsageError, match=r"cannot read a\.tar: the header of a\.png leads backwards"):
        rows("a.tar")


def test_global_headers_are_not_kept() -> None:
    words = b"".join(
        header("pax", 512, tarfile.XGLTYPE) + padded(b"512 key%05d=" % number + b"x" * 498 + b"\n")
        for number in range(2000)
    )
    Path("a.tar").write_bytes(GOOD + words + header("b.png", len(BLUE)) + padded(BLUE) + bytes(1024))
    assert found("a.tar")["a.png"] == RED


def test_a_sparse_member_has_its_holes(tmp_path: Path) -> None:
    with open("hole.png", "wb") as file:
        file.write(b"a" * 4096)
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"b" * 4096)
    for kind in (
        "--format=gnu",
        "--format=pax --sparse-version=0.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax",
    ):
        subprocess.run(["tar", "--sparse", *kind.split(), "-cf", "a.tar", "hole.png"], check=True)
        Path("a.tar.gz").write_bytes(gzip.compress(Path("a.tar").read_bytes()))
        for name in ("a.tar", "a.tar.gz"):
            assert found(name) == {"hole.png": Path("hole.png").read_bytes()}, kind


def sample(count: int, size: int) -> list[Member]:
    return [Member(f"k.{number}.png", ImageRef(data=bytes(size))) for number in range(count)]


def test_a_sample_without_end_comes_out_in_pieces_that_have_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_HELD", 100)
    members = [Member("k.txt", text=b"said"), *sample(10, 60), Member("l.png")]
    pieces = list(samples_in(members))
    assert [key for key, _ in pieces] == ["k"] * 5 + ["l"]
    assert all(piece[0].text == b"said" and len(piece) == 3 for _, piece in pieces[:5])
    assert list(samples_in([*members[:3], Member("k.json", text=b"{}")]))[-1][1][-1].name != "k.json"


def test_the_texts_of_a_sample_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_TEXTS", 100)
    entries: list[Entry] = [("a.png", RED, FILE), ("a.txt", b"x" * 60, FILE), ("a.cls", b"x" * 60, FILE)]
    assert found(tar("a.tar", entries))["a.png"] == "too-large: more than 100 bytes of texts in a sample"


def test_a_member_of_a_zip_without_a_name_is_passed_over() -> None:
    zipped("a.zip", [("a.png", RED, FILE), ("b.png", BLUE, FILE)])
    data = Path("a.zip").read_bytes()
    at = data.rindex(b"b.png")
    Path("a.zip").write_bytes(data[:at] + bytes(5) + data[at + 5 :])
    assert found("a.zip") == {"a.png": RED}


def test_a_zip_that_claims_more_than_is_read_is_not_unpacked() -> None:
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.png", RED)
        packed.writestr("b.txt", bytes(17 << 20))
        packed.writestr("b.png", BLUE)
    tracemalloc.start()
    said = found("a.zip")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert said == {"a.png": RED, "b.png": "too-large: 17,825,792 bytes"}
