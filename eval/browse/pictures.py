"""Where the picture of a key lies: the corpus' index by byte offsets, held in narrow arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from wit import shard
from wit.errors import CorpusError


class Pictures:
    """Reads pictures of a corpus by key; about 40 bytes of memory for each.

    Raises:
        CorpusError: no index, or a damaged one.
    """

    def __init__(self, corpus: Path) -> None:
        self.folder = shard.shards_folder(corpus)
        index = shard.load_index(corpus)
        key_N = np.array(index["key"].to_pylist(), dtype="S")
        order_N = np.argsort(key_N, kind="stable")
        self.key_N = key_N[order_N]
        names = pa.compute.dictionary_encode(index["shard"]).combine_chunks()
        self.shards = names.dictionary.to_pylist()
        self.shard_N = names.indices.to_numpy()[order_N]
        self.offset_N = index["offset"].to_numpy()[order_N]
        self.size_N = index["size"].to_numpy()[order_N]

    def place(self, key: str) -> int | None:
        """Position of a key in the arrays."""
        asked = key.encode()
        i = int(np.searchsorted(self.key_N, asked))
        return i if i < len(self.key_N) and self.key_N[i] == asked else None

    def read(self, key: str) -> bytes | None:
        """The encoded picture; None where there is no such key, or it isn't where the index says.

        The name of a file comes from the index alone, and must be one of the folder's.
        """
        i = self.place(key)
        if i is None:
            return None
        name = self.shards[self.shard_N[i]]
        if Path(name).name != name:
            return None
        try:
            with (self.folder / name).open("rb") as tar:
                return shard.read_member(tar, int(self.offset_N[i]), int(self.size_N[i]))
        except (OSError, CorpusError):  # removed or rewritten since the page was started
            return None
