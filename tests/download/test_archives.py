"""An archive from a stranger is unpacked whole into its folder, or not at all."""

import io
import os
import stat
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast3d_core.download import archives
from fast3d_core.download.archives import unpack
from fast3d_core.errors import DataError
from fast3d_core.files.disk import FullDiskError
from tests.download.conftest import zipped


def archive(folder, content):
    path = folder / "a.zip"
    path.write_bytes(content)
    return path


def with_entry(name, mode=0, data=b"/etc/passwd", others=1):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for number in range(others):
            opened.writestr(f"good{number}", b"good")
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # past what ZipInfo makes of it
        info.external_attr = mode << 16
        opened.writestr(info, data)
    return content.getvalue()


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_good_ones(tmp_path):
    assert written(unpack(archive(tmp_path, zipped(a=b"a", b__c=b"c")), tmp_path / "to")) == ["a", "b/c"]
    # One folder around everything is left out, and so is what macOS adds.
    assert written(unpack(archive(tmp_path, zipped(top__a=b"a", top__b=b"b")), tmp_path / "to")) == ["a", "b"]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        opened.writestr("top/", b"")
        opened.writestr("top/a", b"a")
        opened.writestr("__MACOSX/top/._a", b"x")
    assert written(unpack(archive(tmp_path, content.getvalue()), tmp_path / "to")) == ["a"]


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("../evil", 0, "leaves its folder"),
        ("a/../../evil", 0, "leaves its folder"),
        ("/tmp/evil", 0, "leaves its folder"),
        ("..\\evil", 0, "leaves its folder"),
        ("C:evil", 0, "leaves its folder"),
        ("evil\0.txt", 0, "leaves its folder"),
        ("x" * 2000, 0, "leaves its folder"),
        ("evil", stat.S_IFLNK | 0o777, "a link or a device"),
        ("evil", stat.S_IFCHR | 0o666, "a link or a device"),
        ("evil", stat.S_IFBLK | 0o666, "a link or a device"),
        ("evil", stat.S_IFIFO | 0o666, "a link or a device"),
        ("evil/", stat.S_IFLNK | 0o777, "a link or a device"),
        ("GOOD0", 0, "twice"),
        ("good0/evil", 0, "both a file and a folder"),
    ],
)
def test_bad_ones(tmp_path, name, mode, said):
    before = written(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        unpack(archive(tmp_path, with_entry(name, mode)), tmp_path / "deep" / "to")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert written(tmp_path) == [*before, "a.zip"]


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 10**6)
    with pytest.raises(DataError, match="unpacks to 2000000 bytes"):
        unpack(archive(tmp_path, zipped(a=bytes(2 * 10**6))), tmp_path / "to")
    monkeypatch.setattr(archives, "MAX_FILES", 10)
    with pytest.raises(DataError, match="holds 12 files"):
        unpack(archive(tmp_path, with_entry("x", others=11)), tmp_path / "to")


def test_a_size_that_lies(tmp_path):
    """The directory says 10 bytes, the data has two million: no more than said is written, and the CRC tells."""
    content = bytearray(zipped(a=bytes(2 * 10**6)))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")
    with pytest.raises(DataError, match="damaged"):
        unpack(archive(tmp_path, bytes(content)), tmp_path / "to")
    assert written(tmp_path) == ["a.zip"]


def test_no_archives(tmp_path):
    for content in (b"", b"<html>", zipped(), zipped(a=os.urandom(1000))[:-10]):
        with pytest.raises(DataError):
            unpack(archive(tmp_path, content), tmp_path / "to")
    assert written(tmp_path) == ["a.zip"]


def test_our_own_disk_is_not_the_archive_s_fault(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FullDiskError, match="cannot be written"):
        unpack(archive(tmp_path, zipped(a=b"a")), tmp_path / "file" / "to")


def test_a_password(tmp_path):
    content = bytearray(zipped(a=b"a"))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="password"):
        unpack(archive(tmp_path, bytes(content)), tmp_path / "to")


GOOD = zipped(a=b"a" * 300, b__c=b"c", b__d=os.urandom(100))


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) * 8 - 1)), min_size=1, max_size=3))
def test_flipped_bits(tmp_path, flips):
    content = bytearray(GOOD)
    for (bit,) in flips:
        content[bit // 8] ^= 1 << bit % 8
    try:
        unpack(archive(tmp_path, bytes(content)), tmp_path / "to")
    except DataError as problem:
        assert "\n" not in str(problem)
        assert written(tmp_path) == ["a.zip"]
