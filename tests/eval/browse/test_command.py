"""The server of `wit browse`: what it gives, to whom, and which settings can not be."""

import http.client
import json
import shutil
from urllib.parse import urlsplit

import pytest

from eval.browse.command import BrowseConfig, served
from eval.pages.server import serve
from wit.config import load
from wit.errors import ConfigError, CorpusError, InputError


def config_of(corpus, **values):
    return BrowseConfig(corpus=corpus, **values)


def request(address, method, path, body=None, **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    connection.request(method, path, body, {n.replace("_", "-"): v for n, v in headers.items()})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def enter(address, **headers):
    reply, _ = request(address, "GET", f"/?{urlsplit(address).query}", **headers)
    return reply.headers["Set-Cookie"].split(";")[0]


def test_the_page_and_nothing_else_is_served(gallery, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(gallery, copy, ignore=shutil.ignore_patterns("stages"))
    with served(config_of(copy)) as address, served(config_of(copy)) as second:
        assert address.startswith("http://127.0.0.1:")
        cookie = enter(address)
        assert cookie.split("=")[0] != enter(second).split("=")[0]  # two pages in one browser
        json_type = {"Content_Type": "application/json", "Cookie": cookie}
        for path, kind in (
            ("/", "text/html"),
            ("/page.js", "text/javascript"),
            ("/browse.css", "text/css"),
        ):
            reply, content = request(address, "GET", path, Cookie=cookie)
            assert (reply.status, reply.headers.get_content_type()) == (200, kind)
            assert b"innerHTML" not in content
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        _, content = request(address, "POST", "/search", '{"text": "lighthouse"}', **json_type)
        (pair,) = json.loads(content)["pairs"]
        reply, content = request(address, "GET", f"/picture/{pair['key']}", Cookie=cookie)
        assert (reply.headers.get_content_type(), content[:2]) == ("image/jpeg", b"\xff\xd8")
        picture = f"/picture/{pair['key']}"
        for path in (
            *(
                "/../server.py",
                "/server.py",
                "/manifest.json",
                "/overlap.js",
                "/browse-../server.py",
            ),
            *("/picture/", "/picture/../manifest.json", "/picture/%2e%2e%2fmanifest.json"),
            *("/picture//etc/passwd", f"{picture}/..", f"{picture}.jpg"),
        ):
            assert request(address, "GET", path, Cookie=cookie)[0].status == 404, path
        for method, path in (("GET", "/"), ("GET", picture), ("POST", "/search")):
            assert request(address, method, path, "{}")[0].status == 403
        reply, content = request(address, "POST", "/search", '{"offset": -1}', **json_type)
        assert (reply.status, json.loads(content)["error"][:7]) == (400, "offset:")
        reply, _ = request(address, "POST", "/search", " " * 300_000, **json_type)
        assert reply.status == 413


def test_what_goes_wrong_with_the_corpus_is_answered_in_a_line():
    def torn(asked):
        raise CorpusError("corpus.duckdb: torn: build it again")

    with serve("browse", {"search": torn}, lambda name: None) as address:
        headers = {"Content_Type": "application/json", "Cookie": enter(address)}
        reply, content = request(address, "POST", "/search", "{}", **headers)
    assert reply.status == 500
    assert json.loads(content) == {"error": "corpus.duckdb: torn: build it again"}


def test_bound_elsewhere_a_token_lets_in_and_a_strangers_name_does_not(gallery, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(gallery, copy, ignore=shutil.ignore_patterns("stages"))
    with served(config_of(copy, host="0.0.0.0")) as address:
        port = urlsplit(address).port
        assert "token=" in address
        assert "0.0.0.0" not in address
        for host in (f"127.0.0.1:{port}", f"192.168.7.7:{port}", urlsplit(address).netloc):
            assert request(address, "GET", "/", Host=host)[0].status == 403
            cookie = enter(address, Host=host)
            assert request(address, "GET", "/", Host=host, Cookie=cookie)[0].status == 200
        for host in (
            f"evil.example:{port}",
            "evil.example",
            f"127.0.0.1:{port + 1}",
            "[::1",
            "x:y:z",
        ):
            assert request(address, "GET", "/", Host=host, Cookie=cookie)[0].status == 421
        post = {"Cookie": cookie, "Content_Type": "application/json", "Host": f"127.0.0.1:{port}"}
        stranger = request(address, "POST", "/about", "{}", Origin="http://evil.example", **post)
        assert stranger[0].status == 403
        assert request(address, "POST", "/about", "{}", **post)[0].status == 200


def test_settings_that_can_not_be(tmp_path, gallery):
    with pytest.raises(ConfigError, match="must be an address"):
        load(BrowseConfig, ["--host", "localhost"], prog="wit browse")
    with pytest.raises(CorpusError, match="no manifest"), served(config_of(tmp_path)):
        pass
    listed = tmp_path / "flags.txt"
    listed.write_text("what is this\n")
    with (
        pytest.raises(InputError, match="mend that line"),
        served(config_of(gallery, flags=listed)),
    ):
        pass
