"""Part of runs/flickr8k.sh and flickr8k-eval.sh: prepare captioned photographs, and serve them.

    flickr8k.py prepare PHOTOS OUT   metadata.parquet (train) and retrieval/ (val) in OUT
    flickr8k.py split CLASSES FILE   a CSV file over a folder of class folders: of each class, three
                                     fifths to train on and two to test, by the names' hashes
    flickr8k.py serve PHOTOS PORT    photographs over HTTP on a free loopback port, which is
                                     written to the file PORT; stop it with a signal

PHOTOS holds images/*.jpg and captions.parquet with the columns image, captions (a list of
strings) and split (train or val).
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wit.errors import InputError, WitError
from wit.shard import Sample, write_shard

HOST = "photos.flickr8k.example"  # no such host: `wit shards --fetch.resolve` says where it is
COLUMNS = ["image", "captions", "split"]


def read_captions(photos: Path) -> list[dict[str, object]]:
    path = photos / "captions.parquet"
    try:
        return pq.read_table(path, columns=COLUMNS).to_pylist()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; give the folder that holds it and images/") from None
    except (pa.ArrowInvalid, KeyError):
        raise InputError(f"{path}: needs the columns {', '.join(COLUMNS)}") from None


def prepare(photos: Path, out: Path) -> None:
    """Write what `wit shards` and `wit eval` read: one row per caption, one sample per image."""
    rows = read_captions(photos)
    out.mkdir(parents=True, exist_ok=True)
    pairs = [
        {"url": f"http://{HOST}/{row['image']}", "text": caption}
        for row in rows
        if row["split"] == "train"
        for caption in row["captions"]
    ]
    pq.write_table(pa.Table.from_pylist(pairs), out / "metadata.parquet")
    held_out = [row for row in rows if row["split"] == "val"]
    test = out / "retrieval" / "test"
    test.mkdir(parents=True, exist_ok=True)
    write_shard(test / "0.tar", samples(photos, held_out))
    (test / "nshards.txt").write_text("1\n")
    (test.parent / "dataset_type.txt").write_text("retrieval\n")
    print(f"{out}: {len(pairs):,} pairs to train on, {len(held_out):,} photographs held out")


def samples(photos: Path, rows: list[dict[str, object]]) -> Iterator[Sample]:
    for i, row in enumerate(rows):
        image = (photos / "images" / str(row["image"])).read_bytes()
        yield Sample(f"s{i:07d}", image, "jpg", "\n".join(row["captions"]))


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode()).digest()


def split(classes: Path, file: Path) -> None:
    """Write an evaluation set with training data out of pictures that have none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for folder in sorted(path for path in classes.iterdir() if path.is_dir()):
        pictures = sorted((p for p in folder.iterdir() if p.name[0] != "."), key=_hash)
        for i, picture in enumerate(pictures):
            part = "train" if 5 * i < 3 * len(pictures) else "test"
            rows.append((os.path.relpath(picture, file.parent), folder.name, part))
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("image", "label", "split"), *rows])
    temporary.replace(file)
    print(f"{file}: {len(rows):,} pictures of {len({row[1] for row in rows})} classes")


class Handler(SimpleHTTPRequestHandler):
    """The files of one folder, with connections kept open and no log line for each."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


def serve(photos: Path, port_file: Path) -> None:
    handler = partial(Handler, directory=str(photos / "images"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        temporary = port_file.with_name(port_file.name + ".tmp")
        temporary.write_text(str(server.server_address[1]))
        temporary.replace(port_file)
        server.serve_forever()


def main(argv: list[str]) -> None:
    commands = {"prepare": prepare, "split": split, "serve": serve}
    if len(argv) != 3 or argv[0] not in commands:
        sys.exit(__doc__)
    commands[argv[0]](Path(argv[1]), Path(argv[2]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WitError as error:
        sys.exit(f"flickr8k: {error}")
