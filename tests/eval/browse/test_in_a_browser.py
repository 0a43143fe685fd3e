"""The page of `wit browse` in a real browser."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from eval.browse.command import BrowseConfig, served
from pipeline.remove import main as remove_main


@pytest.fixture(scope="module")
def site(browser, gallery, make_run, tmp_path_factory):
    """A corpus with hostile captions, served with a model: (address, corpus, checkpoint)."""
    folder = tmp_path_factory.mktemp("site")
    corpus = folder / "corpus"
    shutil.copytree(gallery, corpus, ignore=shutil.ignore_patterns("stages"))
    checkpoint = make_run(folder / "run")
    with served(BrowseConfig(corpus=corpus, checkpoint=checkpoint)) as address:
        yield address, corpus, checkpoint


class Visit:
    """A tab, and what its console said of mistakes."""

    def __init__(self, browser, address, **options):
        self.errors = []
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(250_000)  # a busy machine is no mistake of the page
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text)
                     if message.type in ("error", "warning") else None)  # fmt: skip
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready]")
        self.page.wait_for_selector("body[data-found]")

    def cards(self):
        return self.page.locator("#results .text").all_inner_texts()

    def do(self, act):
        """Do something that asks for pairs, and wait for the answer."""
        before = self.page.get_attribute("body", "data-found")
        act()
        self.page.wait_for_selector(f"body[data-found]:not([data-found='{before}'])")

    def look_for(self, text):
        self.page.fill("#q", text)
        self.do(lambda: self.page.press("#q", "Enter"))

    def view(self, name):
        self.page.click(f"nav a[data-view={name}]")
        self.page.wait_for_selector(f"#{name}:not([hidden])")


@pytest.fixture
def visit(browser, site):
    opened = Visit(browser, site[0])
    yield opened
    assert opened.errors == []
    opened.page.context.close()


def test_search_filters_and_a_pair(visit):
    page = visit.page
    assert "rows kept" in page.inner_text("#counts")
    visit.look_for("planted umbrella")
    assert visit.cards() == ["a planted umbrella in a picture by the sea, a picture"]
    page.locator("#results img").evaluate("image => image.decode()")
    page.click("#results .open")
    detail = page.locator("#detail")
    detail.locator(".verdict", has_text="Kept").wait_for()
    shown = detail.inner_text()
    for known in ("umbrella", "CC0", "rows.jsonl", "00001.tar", "120 pixels", "q3.png"):
        assert known in shown
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail:not([open])", state="attached")
    visit.do(lambda: page.click("#reasons button[data-reason=image_too_small]"))
    assert visit.cards() == ["too small a picture"]
    page.click("#results .open")
    detail.locator(".verdict", has_text="image.min_side").wait_for()
    assert "20 × 20 pixels" in detail.inner_text()
    page.keyboard.press("Escape")
    visit.do(lambda: page.click("#chips .chip"))
    visit.do(lambda: page.select_option("#verdict", ""))
    page.click("#add summary")
    page.select_option("#column", "text")
    page.select_option("#op", "contains")
    page.fill("#value", "BOAT")
    visit.do(lambda: page.click("#filter button"))
    assert sorted(visit.cards()) == ["a picture of a red boat", "the same boat again, a picture"]
    visit.do(page.go_back)
    assert len(visit.cards()) == 15
    visit.do(page.reload)
    assert len(visit.cards()) == 15


def test_hostile_captions_are_shown_and_do_nothing(visit):
    page = visit.page
    visit.do(lambda: page.select_option("#verdict", ""))
    page.wait_for_selector("#results .card >> nth=14")
    shown = page.inner_text("#results")
    assert "<script>window.hacked = 1</script> <img src=x onerror='window.hacked = 1'>" in shown
    assert page.locator("#results script, #results svg, img[src='x']").count() == 0
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    turned = page.locator("#results .card", has_text="gnp.exe")
    isolated = turned.locator("bdi").evaluate("e => getComputedStyle(e).unicodeBidi")
    assert isolated == "isolate"
    for caption, seen in (("gnp.exe", "U+202E"), ("<script>", "<script>"), ("svg", "{{7*7}}")):
        page.locator("#results .card", has_text=caption).locator(".open").click()
        page.locator("#detail", has_text=seen).wait_for()
        page.keyboard.press("Escape")
    page.locator("#results .card", has_text="mmmm").locator(".open").click()
    page.locator("#detail .caption", has_text="mmmm").wait_for()
    width = page.evaluate("[document.querySelector('#detail').scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    page.keyboard.press("Escape")
    page.locator("#results .card", has_text="that is not there").locator(".open").click()
    page.locator("#detail", has_text="javascript:alert(1)//q.png").wait_for()
    assert page.locator("#detail a[href^='javascript']").count() == 0
    page.keyboard.press("Escape")
    visit.look_for("<script>alert(1)</script>")
    visit.view("sql")
    page.fill("#query", "SELECT text, raw_text FROM pairs WHERE text LIKE '%script%'")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#sql-result td")
    assert "<script>" in page.inner_text("#sql-result")
    assert page.evaluate("window.hacked === undefined")


def test_sql_is_read_only(visit):
    page = visit.page
    visit.view("sql")
    page.click("#sql-form button.main")
    page.wait_for_selector("#sql-result td")
    assert "image_too_small" in page.inner_text("#sql-result")
    for query in ("DELETE FROM pairs", "SELECT * FROM read_text('/etc/hostname')"):
        page.fill("#query", query)
        with page.expect_response("**/sql") as reply:
            page.click("#sql-form button.main")
        assert reply.value.status == 400
        page.wait_for_selector("#error:not(:empty)")
        assert page.locator("#sql-result td").count() == 0
    page.fill("#query", "SELECT count(*) AS n FROM pairs")
    page.click("#sql-form button.main")
    page.wait_for_selector("#sql-result td")
    assert page.inner_text("#sql-result td") == "15"
    assert page.inner_text("#error") == ""
    visit.errors[:] = [one for one in visit.errors if "400 (Bad Request)" not in one]


def test_why_not(visit):
    page = visit.page
    visit.view("why")
    page.fill("#why-text", "the same  boat again, a picture")
    page.click("#why-form button")
    page.wait_for_selector("#answer .verdict")
    said = page.inner_text("#answer")
    assert "dropped" in said
    assert "duplicate_image" in said
    assert "a picture of a red boat" in said  # the member that was kept
    page.fill("#why-text", "")
    page.fill("#why-url", "https://nowhere.example/drawing.SVG?utm_source=x")
    page.click("#why-form button")
    page.locator("#answer", has_text="url_extension").wait_for()
    assert "url.block_extensions = svg" in page.inner_text("#answer")


def test_a_dropped_picture_gives_probabilities_and_finds_its_like(visit, site):
    page = visit.page
    visit.view("try")
    page.fill("#labels", "a lighthouse\ntwo dogs\na red boat")
    data = next((site[1].parent).rglob("shards/00000.tar"))
    assert data.is_file()
    picture = page.evaluate("fetch('/picture/000000000').then((r) => r.arrayBuffer())"
                            ".then((b) => Array.from(new Uint8Array(b)))")  # fmt: skip
    drop = """bytes => { const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], 'mine.jpg', {type: 'image/jpeg'}));
        return files; }"""
    files = page.evaluate_handle(drop, picture)
    page.dispatch_event("#drop", "drop", {"dataTransfer": files})
    page.wait_for_selector("#shares .share >> nth=2")
    shares = [float(one.rstrip("%")) for one in page.locator("#shares .n").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares == sorted(shares, reverse=True)
    visit.view("search")
    files = page.evaluate_handle(drop, picture)
    visit.do(lambda: page.dispatch_event("#search", "drop", {"dataTransfer": files}))
    first = page.locator("#results img").first.get_attribute("src")
    assert first == "/picture/000000000"
    visit.do(lambda: page.select_option("#target", "captions"))
    assert "nearest to the picture" in page.inner_text("#status")
    visit.do(lambda: page.locator("#results a", has_text="alike").nth(1).click())
    assert "nearest to the pair" in page.inner_text("#status")
    page.fill("#q", "a boat")
    page.select_option("#mode", "text")
    visit.do(lambda: page.press("#q", "Enter"))
    assert "nearest to the text" in page.inner_text("#status")


def test_flags_survive_a_restart_and_remove_takes_them(browser, site, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(site[1], corpus, ignore=shutil.ignore_patterns("browse", "flagged.txt"))
    with served(BrowseConfig(corpus=corpus)) as address:
        visit = Visit(browser, address)
        visit.look_for("lighthouse")
        visit.page.click("#results .flag")
        visit.page.wait_for_selector("#results .flag[aria-pressed=true]")
        assert visit.page.inner_text("#flags") == "1"
        assert visit.errors == []
        visit.page.context.close()
    with served(BrowseConfig(corpus=corpus)) as address:
        visit = Visit(browser, address)
        assert visit.page.inner_text("#flags") == "1"
        visit.view("flagged")
        visit.page.wait_for_selector("#flagged-pairs .card")
        assert "a picture of a lighthouse" in visit.page.inner_text("#flagged-pairs")
        command = visit.page.inner_text("#command").split()
        visit.view("try")
        assert "--checkpoint RUN" in visit.page.inner_text("#try")
        assert not visit.page.is_visible("#try-form")
        assert visit.errors == []
        visit.page.context.close()
    assert remove_main(command[2:]) == 0
    rows = pq.read_table(corpus / "pairs").to_pylist()
    reasons = {row["text"]: row["reason"] for row in rows}
    assert reasons["a picture of a lighthouse"] == "opted_out"
    with served(BrowseConfig(corpus=corpus)) as address:
        visit = Visit(browser, address)
        visit.look_for("lighthouse")
        assert visit.cards() == []
        visit.page.context.close()


def test_keyboard_phone_and_dark(browser, site):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True}
    visit = Visit(browser, site[0], **phone)
    page = visit.page
    for view in ("search", "why", "sql", "try", "flagged"):
        visit.view(view)
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], view
    visit.view("search")
    page.wait_for_selector("#results .card")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in back[4:-1].split(",")) < 60
    page.focus("#results .open")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open] .verdict")
    names = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, a[href]')].filter(
        (e) => e.offsetParent && !(e.textContent.trim() || e.ariaLabel || e.labels?.length))
        .map((e) => e.outerHTML)"""
    )
    assert names == []  # each control says what it is
    assert json.dumps(visit.errors) == "[]"
    page.context.close()
