"""`wit browse`: look at a corpus, search it, ask why something is not in it, on a local page."""

from __future__ import annotations

import ipaddress
import os
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg

from wit.config import Settings, load
from wit.errors import MissingExtra

if TYPE_CHECKING:
    from eval.browse.nearest import Nearest
    from eval.browse.page import Page

POST = 256 * 1024  # bytes of a question without a picture


class BrowseConfig(Settings):
    """Serve a page on which a corpus can be searched, read and weeded.

    With --checkpoint also by what pictures show. Nothing in the corpus is changed; indexes are kept
    in CORPUS/browse and made again when the corpus or the checkpoint is another.
    """

    corpus: CliPositionalArg[Path] = Path("data/corpus")
    """corpus directory"""
    checkpoint: Path | None = None
    """Run directory, exported folder, or checkpoint of OpenAI, open_clip or Hugging Face."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """For a checkpoint that doesn't say which it has, or says it wrongly."""
    vocab: str | None = None
    """"openai" or the path of a vocabulary, in place of the checkpoint's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes CUDA where there is one."""
    flags: Path | None = None
    """Removal list that the page writes (default: CORPUS/flagged.txt)."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in that have the printed token."""
    port: int = Field(0, ge=0, le=65535)
    """Port; 0 takes a free one."""
    open: bool = False
    """Open the page in the browser of this machine."""
    seconds: Annotated[float, Field(gt=0)] = 10.0
    """Time after which a question to the catalogue is stopped."""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([KMGT]i?B)$")] = "2GB"
    """Memory for the catalogue's answers."""
    batch_size: int = Field(64, ge=1)
    """Pictures or captions encoded at once while the features are made."""
    threads: int = Field(4, ge=1)
    """Threads that read and decode meanwhile."""
    max_pixels: int = Field(89_478_485, ge=1)
    """Pictures that declare more pixels than this are not decoded."""
    max_bytes: int = Field(32 * 2**20, ge=1)
    """Largest picture that may be dropped on the page."""

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError("must be an address of this machine, e.g. 0.0.0.0") from None
        return host


def main(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C."""
    config = load(BrowseConfig, argv, prog="wit browse")
    with served(config) as address:
        print(f"open {address}", flush=True)
        print("ctrl-c stops; flags are kept as they are set", flush=True)
        if not ipaddress.ip_address(config.host).is_loopback:
            print("others can reach it: whoever has this address may read the corpus", flush=True)
        if config.open and _has_screen():
            webbrowser.open(address)
        threading.Event().wait()
    return 0


@contextmanager
def served(config: BrowseConfig) -> Iterator[str]:
    """The page while the context lasts, its indexes built before; yields the address to open.

    Raises:
        MissingExtra: DuckDB, or torch where there is a checkpoint.
        CorpusError: no finished corpus.
        CheckpointError: no model where `checkpoint` points to.
        InputError: the port is taken, a list of flags that is none.
    """
    try:
        from eval.browse.flags import Flags
        from eval.browse.page import Page
        from eval.browse.postings import postings, state_of
        from eval.browse.reader import Reader
        from pipeline.config import EngineConfig

        if config.checkpoint is not None:
            from eval.browse import nearest  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra((error.name or "").split(".")[0], "browse") from None
    from eval.pages.server import serve
    from wit import manifest

    manifest.read(config.corpus)
    state = state_of(config.corpus)
    words = postings(config.corpus, state, EngineConfig())
    reader = Reader(config.corpus, words, config.memory, config.seconds)
    try:
        flags = Flags(config.flags or config.corpus / "flagged.txt", config.corpus)
        page = Page(config.corpus, reader, flags)
        if config.checkpoint is not None:
            page.nearest = _nearest(page, config, state)
        most = POST + (config.max_bytes * 4 // 3 if config.checkpoint else 0)  # base64
        with serve(
            "browse",
            page.actions(),
            page.picture,
            config.port,
            config.max_pixels,
            host=config.host,
            most_bytes=most,
            one_by_one=False,
        ) as address:
            yield address
    finally:
        reader.close()


def _nearest(page: Page, config: BrowseConfig, state: str) -> Nearest:
    from eval.browse.nearest import Nearest
    from train.options import ModelOptions

    assert config.checkpoint is not None
    model = ModelOptions(
        model=config.checkpoint,
        activation=config.activation,
        vocab=config.vocab,
        device=config.device,
    ).open_model()
    options = {
        "model": config.checkpoint,
        "batch_size": config.batch_size,
        "threads": config.threads,
        "max_pixels": config.max_pixels,
    }
    return Nearest(
        model,
        str(config.checkpoint),
        config.corpus,
        state,
        page.reader,
        page.pictures,
        options,
        config.max_bytes,
    )


def _has_screen() -> bool:
    """Without one, a browser of the terminal would take this command's place."""
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(shown)
