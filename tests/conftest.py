"""Options and fixtures that all tests share. Nothing heavy is imported here: the tests of one
half run where the other half's dependencies are absent."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pipeline.config import ShardsConfig

settings.register_profile("same", derandomize=True, deadline=None)  # the same examples each time
settings.load_profile("same")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core a test; before anything loads OpenMP


class Without:
    """An import finder that doesn't see some packages: they are as good as not installed."""

    def __init__(self, finder: Any, names: Sequence[str]) -> None:
        self._finder, self._names = finder, frozenset(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.split(".")[0] in self._names:
            return None
        return self._finder.find_spec(fullname, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without",
        default="",
        metavar="NAMES",
        help="comma-separated packages to treat as not installed",
    )


def pytest_configure(config: pytest.Config) -> None:
    names = [name for name in str(config.getoption("--without")).split(",") if name]
    if names:
        loaded = sorted(set(names) & set(sys.modules))
        assert not loaded, f"already imported: {', '.join(loaded)}"
        sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]


# Files that take longest, in this order: begun first, so that no core is idle at the end.
LONGEST = (
    *("pipeline/test_ray_engine.py", "pipeline/test_kill.py", "pipeline/test_sample_verdicts.py"),
    *("pipeline/test_runner.py", "pipeline/test_fetch.py", "pipeline/test_sample_evalsets.py"),
    *("train/test_parallel.py", "train/test_kill.py", "train/test_parity.py"),
    *("train/kernels/test_triton.py", "train/test_loop.py", "train/test_fast_paths.py"),
    *("test_tokenizer_parity.py", "test_interrupt.py", "eval/browse/test_in_a_browser.py"),
    "eval/browse/test_reader.py",
    *("eval/test_features.py", "eval/test_suite.py", "eval/test_human_study.py"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as cores; one more for the pipeline, which waits for servers, processes, disks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + ("torch" in str(config.getoption("--without")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))  # stable


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the code remembers in the user's cache folder goes to one of the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by playwright. Closed with each file: its event loop runs in the
    main thread, where others then can't run theirs."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("needs a browser: `make browser` installs chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: make browser")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardsConfig]:
    """The config that builds a small embedded sample, whose server runs for the session."""
    from pipeline.config import ShardsConfig
    from pipeline.sample.build import Recipe, write
    from pipeline.sample.command import sample_config
    from pipeline.sample.server import serve

    folder = tmp_path_factory.mktemp("sample")
    write(folder, Recipe(good=150, copies=1, slow=False, evaluation=False))
    with serve(folder) as port:
        config = sample_config(ShardsConfig(), folder, port)
        fetch = config.fetch.model_copy(update={"processes": 1})  # each imports for half a second
        yield config.model_copy(update={"fetch": fetch})


@pytest.fixture(scope="session")
def corpus(sample: ShardsConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus of the small sample, for tests that only read it."""
    from pipeline.build import build

    folder = tmp_path_factory.mktemp("corpus")
    build(sample.model_copy(update={"corpus": folder}))
    return folder


@pytest.fixture(scope="session")
def split(
    sample: ShardsConfig, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ShardsConfig, Path]:
    """The small sample with a share of its pages held out, built on from one without a split, for
    tests that only read it; and its config."""
    from pipeline.build import build

    folder = tmp_path_factory.mktemp("split") / "corpus"
    shutil.copytree(corpus, folder)
    pack = sample.pack.model_copy(update={"val_share": 0.3, "shard_size": 50})
    config = sample.model_copy(update={"corpus": folder, "pack": pack})
    build(config)
    return config, folder


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """An S3-compatible server of this machine with the empty bucket `corpora`; the file system that
    s3fs makes of it."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install -e '.[s3]'")
    moto = pytest.importorskip(
        "moto.server", reason="moto is not installed: pip install -e '.[dev]'"
    )
    running = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("corpora")
        yield system
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()
