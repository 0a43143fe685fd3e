"""Which addresses are public, and that a connection goes to the address that was checked."""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.guard import Deadline, Endpoint, FetchError, Resolver, is_public
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


def refusal(resolver: Resolver, host: str) -> Reason:
    with pytest.raises(FetchError) as caught:
        resolver.endpoints(host, 80, Deadline(5))
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
    found = Resolver({}, Names([address])).endpoints("host.org", 443, Deadline(5))
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
            Resolver({}, failing(number)).endpoints("x.org", 80, Deadline(5))
        assert (caught.value.reason, caught.value.passing) == (Reason.DNS, passing)


def test_a_hanging_lookup_ends_at_the_deadline() -> None:
    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return []

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        Resolver({}, slow).endpoints("x.org", 80, Deadline(0.05))
    assert time.monotonic() - start < 0.4


def test_a_name_is_asked_for_once() -> None:
    names = Names([PUBLIC])
    resolver = Resolver({}, names)
    for host in ("x.org", "X.ORG", "x.org."):
        resolver.endpoints(host, 80, Deadline(5))
    assert names.asked == ["x.org"]


def test_the_map_decides_before_dns() -> None:
    names = Names(["10.0.0.1"])
    mapping = {"*.shop.test": "127.0.0.1:81", "*.test": "127.0.0.1:82", "a.test": "[::1]:83"}
    resolver = Resolver(mapping, names)

    def where(host: str) -> list[Endpoint]:
        return resolver.endpoints(host, 80, Deadline(5))

    assert where("a.test") == [Endpoint("::1", 83)]
    assert where("b.a.test") == [Endpoint("127.0.0.1", 82)]
    assert where("x.shop.test") == [Endpoint("127.0.0.1", 81)]
    assert names.asked == []
    assert refusal(resolver, "test") is Reason.PRIVATE_ADDRESS  # the suffix needs a name before it
    assert refusal(resolver, "127.0.0.1") is Reason.PRIVATE_ADDRESS


def test_rebinding_gains_nothing(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name turns to loopback after the check; the connection goes where the check was."""
    names = Names([PUBLIC], ["127.0.0.1"])
    resolver = Resolver({}, names)
    tried = []
    real = socket.create_connection

    def network(target: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(target)
        return real(("127.0.0.1", web.server_port), timeout)  # stands for the public machine

    monkeypatch.setattr(socket, "create_connection", network)
    for _ in range(3):
        resolver.connect("rebind.org", 80, 1.0, Deadline(5)).close()
    assert tried == [(PUBLIC, 80)] * 3
    assert names.asked == ["rebind.org"]

    monkeypatch.setattr("pipeline.guard.DNS_TTL_S", 0.0)
    forgetful = Resolver({}, Names([PUBLIC], ["127.0.0.1"]))
    forgetful.connect("rebind.org", 80, 1.0, Deadline(5)).close()
    assert refusal(forgetful, "rebind.org") is Reason.PRIVATE_ADDRESS
    assert tried == [(PUBLIC, 80)] * 4


def test_the_next_address_is_tried(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.create_connection

    def network(target: tuple[str, int], timeout: float) -> socket.socket:
        if target[0] == PUBLIC:
            raise ConnectionRefusedError
        return real(("127.0.0.1", web.server_port), timeout)

    monkeypatch.setattr(socket, "create_connection", network)
    Resolver({}, Names([PUBLIC, "1.1.1.1"])).connect("x.org", 80, 1.0, Deadline(5)).close()
    with pytest.raises(ConnectionRefusedError):
        Resolver({}, Names([PUBLIC])).connect("x.org", 80, 1.0, Deadline(5))
