"""Where the picture of a key lies: the corpus' indexes by byte offsets, held in narrow arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from wit import shard
from wit.errors import CorpusError


class Pictures:
    """Reads pictures of a corpus by key, also of held-out pairs; about 40 bytes of memory for each.

    Raises:
        CorpusError: no index, or a damaged one.
    """

    def __init__(self, corpus: Path) -> None:
        folders = shard.shard_folders(corpus)
        indexes = [shard.load_index(folder) for folder in folders]
        index = pa.concat_tables(indexes)
        folder_N = np.repeat(np.arange(len(folders)), [part.num_rows for part in indexes])
        key_N = np.array(index["key"].to_pylist(), dtype="S")
        order_N = np.argsort(key_N, kind="stable")
        self.key_N = key_N[order_N]
        names = pa.compute.dictionary_encode(index["shard"]).combine_chunks()
        shard_N = names.indices.to_numpy()
        _, first_S = np.unique(shard_N, return_index=True)
        places = zip(folder_N[first_S], names.dictionary.to_pylist(), strict=True)
        # The name of a file comes from an index alone, and must be one of its folder's.
        self._files = [folders[i] / name if Path(name).name == name else None for i, name in places]
        self.shard_N = shard_N[order_N]
        self.offset_N = index["offset"].to_numpy()[order_N]
        self.size_N = index["size"].to_numpy()[order_N]

    def place(self, key: str) -> int | None:
        """Position of a key in the arrays."""
        asked = key.encode()
        i = int(np.searchsorted(self.key_N, asked))
        return i if i < len(self.key_N) and self.key_N[i] == asked else None

    def where(self, key: str) -> tuple[Path, int, int] | None:
        """The tar that holds the picture of a key, offset and bytes; None where there is none."""
        i = self.place(key)
        file = None if i is None else self._files[self.shard_N[i]]
        return None if file is None else (file, int(self.offset_N[i]), int(self.size_N[i]))

    def read(self, key: str) -> bytes | None:
        """The encoded picture; None where there is no such key, or it isn't where the index
        says."""
        place = self.where(key)
        if place is None:
            return None
        file, offset, size = place
        try:
            with file.open("rb") as tar:
                return shard.read_member(tar, offset, size)
        except (OSError, CorpusError):  # removed or rewritten since the page was started
            return None
