from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit import schema
from wit.errors import CorpusError, InputError, SampleError
from wit.shard import (
    Sample,
    TarWriter,
    index_shard,
    load_index,
    read_groups,
    read_member,
    read_shard,
    sample_key,
    shard_name,
    write_shard,
)


def samples(n: int = 5) -> list[Sample]:
    return [
        Sample(sample_key(3, i), bytes([i]) * (700 * i + 1), "jpg", f"café {i}", {"uid": f"u{i}"})
        for i in range(n)
    ]


def add(tar: tarfile.TarFile, name: str, data: bytes = b"x") -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def foreign(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add(tar, name, data)
    return path


def test_a_tar_is_what_tarfile_writes(tmp_path: Path) -> None:
    names = ["0.jpg", "x" * 100, "d" * 60 + "/" + "f" * 70, "é" * 40]
    members = [(name, bytes(size)) for name in names for size in (0, 1, 512, 9999)]
    theirs = io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with (tmp_path / "ours.tar").open("wb") as file:
        ours = TarWriter(file)
        places = [ours.add(name, data) for name, data in members]
        ours.close()
    written = (tmp_path / "ours.tar").read_bytes()
    assert written == theirs.getvalue()
    for (_, data), place in zip(members, places, strict=True):
        assert written[place.offset : place.offset + place.size] == data


def test_names() -> None:
    assert shard_name(0) == "00000.tar"
    assert sample_key(0, 12) == "000000012"
    assert sample_key(123, 9999) == "001239999"


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "00003.tar"
    write_shard(path, samples())
    assert list(read_shard(path)) == samples()
    assert [p.name for p in tmp_path.iterdir()] == ["00003.tar"]  # no temporary left


def test_members_are_adjacent_and_carry_nothing_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "00003.tar"
    write_shard(path, samples(2))
    with tarfile.open(path) as tar:
        infos = tar.getmembers()
    assert [info.name for info in infos] == [
        f"{sample_key(3, i)}.{ext}" for i in range(2) for ext in ("jpg", "txt", "json")
    ]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname) for i in infos} == {(0, 0, 0, "", "")}


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, iter(samples()))
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_index_points_at_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "00003.tar"
    index = write_shard(path, samples())
    assert index.schema == schema.INDEX
    with path.open("rb") as file:
        for row, sample in zip(index.to_pylist(), samples(), strict=True):
            assert row["uid"] == sample.meta["uid"]
            assert read_member(file, row["offset"], row["size"]) == sample.image
            text = read_member(file, row["text_offset"], row["text_size"])
            assert text.decode() == sample.text
    scanned = index_shard(path)
    assert scanned.drop_columns("uid") == index.drop_columns("uid")
    assert scanned["uid"].null_count == 5  # a foreign tar's headers don't know it


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Sample("000030000", b"x", "jpg", "again"), "written twice"),
        (Sample("a.b", b"x", "jpg", "t"), "can't be a key"),
        (Sample("../up", b"x", "jpg", "t"), "can't be a key"),
        (Sample("k", b"x", "exe", "t"), "not an image extension"),
    ],
)
def test_bad_samples_are_not_written(tmp_path: Path, bad: Sample, says: str) -> None:
    path = tmp_path / "00003.tar"
    with pytest.raises(CorpusError, match=says):
        write_shard(path, [*samples(1), bad])
    assert not path.exists()


sample_lists = st.lists(
    st.tuples(st.binary(max_size=2000), st.text(max_size=50), st.sampled_from(["jpg", "png"])),
    max_size=6,
)


@given(sample_lists)
def test_any_samples_come_back(content: list[tuple[bytes, str, str]]) -> None:
    wanted = [
        Sample(sample_key(0, i), image, ext, text.encode("utf-8", "replace").decode(), {"uid": "x"})
        for i, (image, text, ext) in enumerate(content)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.tar"
        index = write_shard(path, wanted)
        assert list(read_shard(path)) == wanted
        assert index.num_rows == len(wanted)


def test_webdataset_rules_for_foreign_tars(tmp_path: Path) -> None:
    path = foreign(
        tmp_path / "x.tar",
        [
            ("./train/a.JPG", b"jpeg"),
            ("./train/a.json", b'{"caption": "from json"}'),
            ("./train/b.png", b"png"),
            ("./train/b.txt", b"from txt"),
            ("./train/b.seg.png", b"mask"),
            ("README", b"no extension, no sample"),
        ],
    )
    first, second = read_shard(path)
    assert (first.key, first.ext, first.image) == ("./train/a", "jpg", b"jpeg")
    assert first.text == "from json"
    assert (second.key, second.text) == ("./train/b", "from txt")
    assert index_shard(path)["text_ext"].to_pylist() == ["json", "txt"]


def test_bad_samples_are_reported_and_passed_over(tmp_path: Path) -> None:
    path = foreign(
        tmp_path / "x.tar",
        [
            ("a.txt", b"no image"),
            ("b.jpg", b"no caption"),
            ("c.jpg", b"x"),
            ("c.txt", b"\xff\xfe"),
            ("d.jpg", b"x"),
            ("d.json", b'["a list"]'),
            ("e.jpg", b"x"),
            ("e.txt", b"good"),
        ],
    )
    seen: list[SampleError] = []
    assert [s.key for s in read_shard(path, seen.append)] == ["e"]
    assert [(e.key, e.file, e.reason) for e in seen] == [
        ("a", str(path), "no_image"),
        ("b", str(path), "no_caption"),
        ("c", str(path), "bad_caption"),
        ("d", str(path), "bad_caption"),
    ]
    with pytest.raises(SampleError, match="no_image"):
        list(read_shard(path))
    seen.clear()
    assert index_shard(path, seen.append)["key"].to_pylist() == ["c", "d", "e"]
    assert [e.reason for e in seen] == ["no_image", "no_caption"]


def test_members_apart_or_repeated_are_refused(tmp_path: Path) -> None:
    apart = foreign(tmp_path / "a.tar", [("a.jpg", b""), ("b.jpg", b""), ("a.txt", b"")])
    with pytest.raises(CorpusError, match="key a are not adjacent"):
        list(read_groups(apart))
    twice = foreign(tmp_path / "t.tar", [("a.jpg", b""), ("a.jpg", b"")])
    with pytest.raises(CorpusError, match="occurs twice"):
        list(read_groups(twice))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_between_members(data: bytes) -> bytes:
    return data[: 2 * tarfile.BLOCKSIZE]  # one header and its one block: whole, but no end


def damage_second_header(data: bytes) -> bytes:
    at = 2 * tarfile.BLOCKSIZE
    return data[:at] + b"\1" * 10 + data[at + 10 :]


@pytest.mark.parametrize(
    "harm", [cut, cut_between_members, damage_second_header, lambda d: d[:100], lambda d: b""]
)
def test_damaged_tars_never_pass_for_short_ones(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "00003.tar"
    write_shard(path, samples())
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(CorpusError, match=r"00003\.tar"):
        list(read_groups(path))


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(CorpusError, match=r"a\.jpg is not a plain file"):
        list(read_shard(path))


def test_a_member_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("a.jpg")
    info.size = 8 * 2**30
    path.write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(CorpusError, match=r"a\.jpg is cut off"):
        list(read_shard(path))


def test_not_a_tar_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(CorpusError, match="not a sound tar"):
        list(read_shard(path))
    with pytest.raises(CorpusError, match="no such shard"):
        list(read_shard(tmp_path / "none.tar"))


def test_read_member_past_the_end(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with (tmp_path / "x").open("rb") as file, pytest.raises(CorpusError, match="cut off"):
        read_member(file, 1, 5)


def test_load_index_of_a_folder_and_of_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for i in (1, 0):
        write_shard(folder / shard_name(i), [Sample(sample_key(i, 0), b"x", "jpg", "t")])
    assert load_index(folder)["shard"].to_pylist() == ["00000.tar", "00001.tar"]

    shards = tmp_path / "corpus" / "shards"
    shards.mkdir(parents=True)
    index = write_shard(shards / "00000.tar", samples())
    pq.write_table(index, shards / "index.parquet")
    assert load_index(tmp_path / "corpus") == index


def test_load_index_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shards here"):
        load_index(tmp_path)
    with pytest.raises(InputError, match="no shards here"):
        load_index(tmp_path / "absent")
    (tmp_path / "index.parquet").write_bytes(b"rubbish")
    with pytest.raises(CorpusError, match="not an index"):
        load_index(tmp_path)
