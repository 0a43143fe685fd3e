"""What tests of downloads share: a client whose answers are waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.download import Client, Download
from pipeline.guard import FetchError
from pipeline.task import FetchLimits
from wit.schema import Reason

BODY = b"\xff\xd8\xff" + bytes(range(256)) * 20


class Blocking:
    """A client whose downloads are waited for, each in an event loop of its own."""

    def __init__(self, limits: FetchLimits) -> None:
        self.limits = limits

    def all(self, *urls: str) -> list[Download | FetchError]:
        async def one(client: Client, url: str) -> Download | FetchError:
            try:
                async with client.get(url) as found:
                    return found
            except FetchError as error:
                return error

        async def run() -> list[Download | FetchError]:
            async with Client(self.limits) as client:
                return await asyncio.gather(*(one(client, url) for url in urls))

        return asyncio.run(run())

    def download(self, url: str) -> Download:
        (found,) = self.all(url)
        if isinstance(found, FetchError):
            raise found
        return found

    def get(self, url: str) -> bytes:
        return self.download(url).body


def client(web: Any, **changes: Any) -> Blocking:
    values = {
        "timeout": 4.0,
        "deadline": 8.0,
        "max_bytes": 100_000,
        "retries": 0,
        "backoff": 0.01,
        "user_agent": "wit/0.1 (test)",
        "any_port": True,
        "resolve": (("*.test", web.address),),
    }
    return Blocking(FetchLimits(**{**values, **changes}))


def refusal(client: Blocking, url: str) -> Reason:
    with pytest.raises(FetchError) as caught:
        client.get(url)
    return caught.value.reason
