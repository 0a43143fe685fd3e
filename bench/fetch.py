"""Downloading: images per second and CPU time beside stock img2dataset, same servers, one run.

    python bench/fetch.py [--photos DIR] [--http 6000] [--https 1500] [--json]

A server process of this script answers on many loopback addresses, each of which stands for a
host, over HTTP and HTTPS (a throw-away certificate made with openssl). A share of the hosts is
faulty: they refuse, stay silent, answer 500 or reset. Both tools fetch the same URLs with two
processes, 128 connections, a time-out of two seconds and the same treatment of images: shorter
side at most 256, bytes kept where nothing shrinks, sha256. Ours also asks for robots.txt, takes a
perceptual hash, and tries failures again at the end. The clock runs from the first request that
the server sees to the end of the tool, so what a tool imports at its start counts for neither.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import certifi
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

HOSTS = 40
FAULTS = ("refuse", "silent", "500", "reset")
SHARES = (0, 5, 20)  # per cent of the hosts that are faulty
PROCESSES, CONNECTIONS, TIMEOUT_S = 2, 128, 2.0
SIDE = 224


def photographs(folder: Path | None, count: int = 500) -> list[bytes]:
    """JPEGs of a folder, or generated ones of about the same size in pixels and bytes."""
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:count]]
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
        noisy = smooth + rng.normal(0, 12, smooth.shape)
        out = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
        found.append(out.getvalue())
    return found


def certificate(folder: Path, addresses: list[str]) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = ",".join(f"IP:{address}" for address in addresses)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=bench", "-addext", f"subjectAltName={names}"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


# --- the server


class Answerer(asyncio.Protocol):
    """Just enough HTTP/1.1 to answer GET with bytes that are ready."""

    answers: list[bytes]
    first: Synchronized[float]

    def __init__(self, fault: str | None) -> None:
        self._fault, self._buffer = fault, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.first.value:
            self.first.value = time.time()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if self._fault == "silent":
            return
        if self._fault == "reset":
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            return
        path = head.split(b" ", 2)[1]
        closing = b"\r\nconnection: close" in head.lower()
        if path == b"/robots.txt":
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif self._fault == "500":
            self._transport.write(b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n")
        else:
            number = int(path.strip(b"/").partition(b".")[0])
            self._transport.write(self.answers[number % len(self.answers)])
        if closing:
            self._transport.close()


def serve(
    bodies: list[bytes],
    addresses: dict[str, str | None],
    pem: tuple[Path, Path] | None,
    port: Synchronized[int],
    first: Synchronized[float],
) -> None:
    """Answer on every address that doesn't refuse, until killed."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    Answerer.answers = [head.format(len(body)).encode() + body for body in bodies]
    Answerer.first = first

    async def run() -> None:
        context = None
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem[1], pem[0])
        loop, number, servers = asyncio.get_running_loop(), 0, []
        for address, fault in addresses.items():
            if fault == "refuse":
                continue
            server = await loop.create_server(
                lambda fault=fault: Answerer(fault), address, number, ssl=context, backlog=1000
            )
            number = number or server.sockets[0].getsockname()[1]
            servers.append(server)
        port.value = number
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(run())


# --- the tools


def ours(urls: list[str], out: Path) -> int:
    """Stage 60 of `wit shards` with its defaults, but for the numbers both tools share."""
    from pipeline.config import ShardsConfig
    from pipeline.context import Context
    from pipeline.fetch import fetch, params
    from wit.progress import Progress

    n = len(urls)
    rows = pa.array(range(n), pa.int64())
    config = ShardsConfig.model_validate(
        {
            "input": [],
            "corpus": out,
            "fetch": {
                "processes": PROCESSES,
                "connections": CONNECTIONS,
                "timeout": TIMEOUT_S,
                "host_rate": 0,
                "allow_loopback": True,
                "any_port": True,
                "max_failures": 1.0,
            },
        }
    )
    tables = {
        "10_ingest": {"row": rows, "rank": pa.array(range(n), pa.uint64())}
        | {"source": ["x"] * n, "local": [False] * n, "url": urls},
        "12_urls": {"row": rows, "url_key": pa.array(range(n), pa.uint64())},
        "50_balance": {"row": rows, "reason": pa.nulls(n, pa.string())},
    }
    for name, columns in tables.items():
        (out / name).mkdir()
        pq.write_table(pa.table(columns), out / name / "rows.parquet")
    (out / "60").mkdir()
    inputs = {name: out / name for name in tables}
    ctx = Context(config, params(config), inputs, out / "60", out, Progress("fetch", io.StringIO()))
    fetch(ctx)
    reasons = pq.read_table(out / "60" / "rows.parquet", columns=["reason"])["reason"]
    return int(reasons.null_count)


def stock(urls: list[str], out: Path) -> int:
    """img2dataset's own command with its defaults, but for the numbers both tools share."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset import download

    pq.write_table(pa.table({"url": urls}), out / "urls.parquet")
    download(
        url_list=str(out / "urls.parquet"),
        input_format="parquet",
        output_format="webdataset",
        output_folder=str(out / "stock"),
        processes_count=PROCESSES,
        thread_count=CONNECTIONS // PROCESSES,
        timeout=int(TIMEOUT_S),
        image_size=256,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        skip_reencode=True,
        enable_wandb=False,
        # as many shards as processes and more, so that both have work to the end
        number_sample_per_shard=max(100, len(urls) // 8),
        disallowed_header_directives=[],
    )
    stats = (out / "stock").glob("*_stats.json")
    return sum(json.loads(path.read_bytes())["successes"] for path in stats)


TOOLS = {"wit": ours, "img2dataset": stock}


def run_tool(name: str, urls: list[str], out: Path, answer: Any) -> None:
    with Path(os.devnull).open("w") as quiet:
        os.dup2(quiet.fileno(), 1)
        os.dup2(quiet.fileno(), 2)
    images = TOOLS[name](urls, out)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    answer.send((images, time.time(), sum(use.ru_utime + use.ru_stime for use in usage)))


@dataclass(frozen=True)
class Measured:
    """One tool on one server."""

    images: int
    seconds: float
    cpu: float
    memory: list[float]  # MiB of all processes of the tool, four times a second

    @property
    def rate(self) -> float:
        return self.images / self.seconds

    @property
    def growth(self) -> float:
        """Memory in the last quarter over that in the second; 1.0 is flat."""
        n = len(self.memory)
        second, last = self.memory[n // 4 : n // 2], self.memory[3 * n // 4 :]
        return max(last) / max(second) if second and last else 1.0


def family_of(root: int) -> tuple[float, float]:
    """MiB that a process and its descendants hold, and seconds of CPU that they have had."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    ticks: dict[int, int] = {}
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            number = int(folder.name)
            parents[number], sizes[number] = int(stat[1]), int(stat[21])
            ticks[number] = sum(map(int, stat[11:15]))
        except OSError:
            continue
    family = {root}
    for process in sorted(parents):
        if parents[process] in family:
            family.add(process)
    held = sum(sizes.get(process, 0) for process in family) * page / 2**20
    return held, sum(ticks.get(process, 0) for process in family) / tick


def measure(name: str, urls: list[str], first: Synchronized[float]) -> Measured:
    first.value = 0.0
    spawn = multiprocessing.get_context("spawn")
    ours_end, theirs = spawn.Pipe()
    memory: list[float] = []
    started: list[float] = []  # CPU that was used before the first request
    with tempfile.TemporaryDirectory() as out:
        process = spawn.Process(target=run_tool, args=(name, urls, Path(out), theirs))
        process.start()
        theirs.close()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05 if not first.value else 0.25):
                held, cpu = family_of(process.pid or 0)
                if first.value:
                    memory.append(held)
                else:
                    started[:] = [cpu]

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            images, ended, cpu = ours_end.recv()
        except EOFError:
            raise SystemExit(f"{name} ended without an answer") from None
        finally:
            done.set()
            watcher.join()
            process.join()
    return Measured(images, ended - first.value, cpu - started[0], memory)


def compare(bodies: list[bytes], secure: bool, urls: int, share: int) -> dict[str, Measured]:
    addresses = [f"127.0.0.{i + 10}" for i in range(HOSTS)]
    faulty = HOSTS * share // 100
    faults = {a: FAULTS[i % len(FAULTS)] if i < faulty else None for i, a in enumerate(addresses)}
    spawn = multiprocessing.get_context("spawn")
    port, first = spawn.Value("i", 0), spawn.Value("d", 0.0)
    with tempfile.TemporaryDirectory() as folder:
        pem = certificate(Path(folder), addresses) if secure else None
        if pem:  # beside the usual authorities, which a client reads too
            trusted = Path(folder) / "trusted.pem"
            trusted.write_bytes(Path(certifi.where()).read_bytes() + pem[1].read_bytes())
            os.environ["SSL_CERT_FILE"] = str(trusted)
        server = spawn.Process(target=serve, args=(bodies, faults, pem, port, first), daemon=True)
        server.start()
        try:
            while not port.value:
                if not server.is_alive():
                    raise SystemExit("the server did not start")
                time.sleep(0.05)
            scheme = "https" if secure else "http"
            listed = [
                f"{scheme}://{addresses[i % HOSTS]}:{port.value}/{i}.jpg" for i in range(urls)
            ]
            found = {}
            for name in TOOLS:
                found[name] = measure(name, listed, first)
                print(
                    f"{scheme}, {share}% faulty, {name}: {found[name].seconds:.0f} s",
                    file=sys.stderr,
                )
            return found
        finally:
            server.terminate()
            server.join()
            os.environ.pop("SSL_CERT_FILE", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, help="folder of *.jpg; without it generated ones")
    parser.add_argument("--http", type=int, default=6000, metavar="N", help="URLs over HTTP")
    parser.add_argument("--https", type=int, default=1500, metavar="N", help="URLs over HTTPS")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    if shutil.which("openssl") is None:
        print("openssl is not installed: no certificate for HTTPS, nothing measured")
        return
    bodies = photographs(options.photos)
    console, found = Console(), dict[str, Any]()
    table = Table(title="downloading 224-pixel photographs", title_justify="left")
    for column in ("", "faulty", "tool", "images", "images/s", "CPU s per 1,000", "MiB", "growth"):
        table.add_column(column, justify="left" if column in ("", "tool") else "right")
    for scheme, urls in (("http", options.http), ("https", options.https)):
        for share in SHARES:
            tools = compare(bodies, scheme == "https", urls, share)
            for name, got in tools.items():
                cost = 1000 * got.cpu / max(1, got.images)
                table.add_row(
                    scheme, f"{share}%", name, f"{got.images:,}", f"{got.rate:,.0f}",
                    f"{cost:.2f}", f"{max(got.memory, default=0):,.0f}", f"{got.growth:.2f}",
                )  # fmt: skip
                found[f"{name}_{scheme}_{share}"] = {
                    "images": got.images,
                    "images_per_s": got.rate,
                    "cpu_s_per_1000": cost,
                    "memory_mib": max(got.memory, default=0),
                    "memory_growth": got.growth,
                }
            suffix = "" if share == 0 else f"_{share}"
            found[f"ratio_{scheme}{suffix}"] = tools["wit"].rate / tools["img2dataset"].rate
    console.print(table)
    for key, value in found.items():
        if key.startswith("ratio"):
            console.print(f"{key}: {value:.2f} times as many images per second")
    found |= {"img2dataset": version("img2dataset"), "python": sys.version.split()[0]}
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
