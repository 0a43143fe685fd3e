"""Which addresses are public, and that a connection goes to the address that was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.download import Client
from pipeline.guard import Endpoint, FetchError, Resolver, is_public
from pipeline.task import FetchLimits
from wit.schema import Reason

PUBLIC = "93.184.216.34"


class Names:
    """A stand-in for DNS: gives one list of addresses after the other for every name."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def __call__(self, host: str, port: int | None, **options: Any) -> list[Any]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in found]


def ask(resolver: Resolver, host: str, port: int = 80) -> list[Endpoint]:
    return asyncio.run(resolver.endpoints(host, port))


def refusal(resolver: Resolver, host: str) -> Reason:
    with pytest.raises(FetchError) as caught:
        ask(resolver, host)
    return caught.value.reason


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2001::1",
        "2001:0:7f00:1::1",
        "3fff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert refusal(Resolver({}, Names([address])), "host.org") is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    found = ask(Resolver({}, Names([address])), "host.org", 443)
    assert found == [Endpoint(address, 443)]


private_v4 = st.sampled_from(["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16"])


@given(private_v4, st.integers(0, 2**32 - 1))
def test_wrapped_private_addresses_stay_private(network: str, number: int) -> None:
    net = ipaddress.IPv4Network(network)
    inner = int(net.network_address) | (number & int(net.hostmask))
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | inner)
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | inner)
    sixtofour = ipaddress.IPv6Address((0x2002 << 112) | (inner << 80) | 1)
    for address in (ipaddress.IPv4Address(inner), mapped, nat64, sixtofour):
        assert not is_public(address)


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    assert refusal(Resolver({}, Names([PUBLIC, "10.0.0.1"])), "x.org") is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "::1", "0"]
)
def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    """Through the system's own resolver, which knows these without asking anybody."""
    assert refusal(Resolver({}), host) is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize("host", ["", "a" * 64 + ".org", "a..b", "x\0y", "shop.example", "a.test"])
def test_names_without_address(host: str) -> None:
    assert refusal(Resolver({}), host) is Reason.DNS


def test_dns_failures_tell_whether_to_try_again() -> None:
    def failing(number: int) -> Any:
        def lookup(*args: Any, **options: Any) -> Any:
            raise socket.gaierror(number, "no")

        return lookup

    for number, passing in ((socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)):
        with pytest.raises(FetchError) as caught:
            ask(Resolver({}, failing(number)), "x.org")
        assert (caught.value.reason, caught.value.passing) == (Reason.DNS, passing)


def test_a_hanging_lookup_ends_at_the_deadline() -> None:
    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(2)
        return []

    async def run() -> None:
        resolver = Resolver({}, slow)
        async with Client(FetchLimits(deadline=0.05, retries=0), resolver) as client:
            start = time.monotonic()
            with pytest.raises(FetchError) as caught:
                async with client.get("http://x.org/"):
                    pass
            assert caught.value.reason is Reason.TIMEOUT
            assert time.monotonic() - start < 1.5
            await asyncio.sleep(2.1)

    asyncio.run(run())


def test_a_name_is_asked_for_once() -> None:
    names = Names([PUBLIC])
    resolver = Resolver({}, names)

    async def run() -> None:
        hosts = ("x.org", "X.ORG", "x.org.", "x.org")
        await asyncio.gather(*(resolver.endpoints(host, 80) for host in hosts))
        await resolver.endpoints("x.org", 80)

    asyncio.run(run())
    assert names.asked == ["x.org"]


def test_a_failure_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def failing(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no")

    resolver = Resolver({}, failing)
    for _ in range(3):
        assert refusal(resolver, "x.org") is Reason.DNS
    assert asked == ["x.org"]
    monkeypatch.setattr("pipeline.guard.DNS_FAILURE_TTL_S", 0.0)
    forgetful = Resolver({}, failing)
    for _ in range(2):
        assert refusal(forgetful, "y.org") is Reason.DNS
    assert asked == ["x.org", "y.org", "y.org"]


def test_the_map_decides_before_dns() -> None:
    names = Names(["10.0.0.1"])
    mapping = {"*.shop.test": "127.0.0.1:81", "*.test": "127.0.0.1:82", "a.test": "[::1]:83"}
    resolver = Resolver(mapping, names)

    def where(host: str) -> list[Endpoint]:
        return ask(resolver, host)

    assert where("a.test") == [Endpoint("::1", 83)]
    assert where("b.a.test") == [Endpoint("127.0.0.1", 82)]
    assert where("x.shop.test") == [Endpoint("127.0.0.1", 81)]
    assert names.asked == []
    assert refusal(resolver, "test") is Reason.PRIVATE_ADDRESS  # the suffix needs a name before it
    assert refusal(resolver, "127.0.0.1") is Reason.PRIVATE_ADDRESS


class Network:
    """Stands for the public network: connections to PUBLIC end at a test's server."""

    def __init__(self, port: int, monkeypatch: pytest.MonkeyPatch, dead: set[str]) -> None:
        self.tried: list[str] = []
        real = asyncio.SelectorEventLoop.sock_connect

        async def connect(loop: Any, sock: socket.socket, address: Any) -> None:
            self.tried.append(address[0])
            if address[0] in dead:
                raise ConnectionRefusedError
            where = ("127.0.0.1", port) if address[0] != "127.0.0.1" else address
            await real(loop, sock, where)

        monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)


def fetch(names: Names, *urls: str) -> list[bytes | Reason]:
    async def run() -> list[bytes | Reason]:
        limits = FetchLimits(timeout=8.0, retries=0, any_port=True)
        found: list[bytes | Reason] = []
        async with Client(limits, Resolver({}, names)) as client:
            for url in urls:
                try:
                    async with client.get(url) as download:
                        found.append(download.body)
                except FetchError as error:
                    found.append(error.reason)
        return found

    return asyncio.run(run())


def test_rebinding_gains_nothing(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name turns to loopback after the check; the connection goes where the check was."""
    network = Network(web.server_port, monkeypatch, set())
    web.body("/x", b"public")
    names = Names([PUBLIC], ["127.0.0.1"])
    assert fetch(names, *["http://rebind.org/x"] * 3) == [b"public"] * 3
    assert set(network.tried) == {PUBLIC}
    assert names.asked == ["rebind.org"]

    # also where the first answer is forgotten between the check and the connection
    monkeypatch.setattr("pipeline.guard.DNS_TTL_S", 0.0)
    network.tried.clear()
    names = Names([PUBLIC], ["127.0.0.1"])
    assert fetch(names, "http://rebind.org/x") == [Reason.PRIVATE_ADDRESS]
    assert network.tried == []


def test_a_redirect_to_a_name_inside_is_refused(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(web.server_port, monkeypatch, set())
    web.status("/x", 302, Location="http://inside.org/secret")
    web.body("/secret", b"secret")
    names = Names([PUBLIC], ["10.0.0.5"])
    assert fetch(names, "http://outside.org/x") == [Reason.PRIVATE_ADDRESS]
    assert names.asked == ["outside.org", "inside.org"]
    assert web.hits["/secret"] == 0
    assert set(network.tried) == {PUBLIC}


def test_the_next_address_is_tried(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(web.server_port, monkeypatch, {PUBLIC})
    web.body("/x", b"public")
    assert fetch(Names([PUBLIC, "1.1.1.1"]), "http://x.org/x") == [b"public"]
    assert network.tried == [PUBLIC, "1.1.1.1"]
    assert fetch(Names([PUBLIC]), "http://x.org/x") == [Reason.CONNECTION]
