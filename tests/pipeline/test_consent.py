"""Headers and notes that forbid the use of an image."""

from __future__ import annotations

import pytest

from pipeline.consent import marked, opted_out, reserved


@pytest.mark.parametrize(
    ("values", "out"),
    [
        ([], False),
        (["noai"], True),
        (["all"], False),
        (["nofollow, NoImageAI"], True),
        (["noml"], True),
        (["noindex"], True),
        (["noimageindex"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["wit: noai"], True),
        (["otherbot: nofollow", "noindex"], True),
        (["max-snippet: -1, noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noarchive"], False),
        (["none"], True),
    ],
)
def test_robots_headers(values: list[str], out: bool) -> None:
    assert opted_out(values, "wit") is out


def test_the_reservation_protocol() -> None:
    assert reserved({"TDM-Reservation": "1"})
    assert not reserved({"TDM-Reservation": "0"})
    assert not reserved({})


def test_metadata_of_the_image() -> None:
    xmp = b"<plus:DataMining>http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED</plus:DataMining>"
    assert marked(b"\xff\xd8\xff\xe1" + xmp + bytes(100))
    assert not marked(b"\xff\xd8\xff" + xmp.replace(b"PROHIBITED", b"ALLOWED"))
