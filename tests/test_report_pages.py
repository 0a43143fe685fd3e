"""Both reports in a real browser: no errors, no harm from captions, two schemes, a telephone."""

import shutil

import duckdb
import pytest

from wit.report_command import main

HARM = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=\'broken\'">',
    "innocent \u202egpj.exe",
    "m" * 5000,
)


@pytest.fixture(scope="module")
def corpus_page(browser, corpus, tmp_path_factory):
    """The report of a corpus whose captions mean harm."""
    mine = tmp_path_factory.mktemp("mine") / "corpus"
    shutil.copytree(corpus, mine)
    with duckdb.connect(str(mine / "corpus.duckdb")) as con:
        for i, text in enumerate(HARM):
            given = {"text": text, "i": i}
            con.execute("UPDATE pairs SET text = $text, domain = $text WHERE row % 4 = $i", given)
            con.execute("UPDATE queries SET query = $text WHERE query_id % 4 = $i", given)
            con.execute("UPDATE domains SET domain = $text || domain WHERE rows % 4 = $i", given)
    main([str(mine), "--samples", "60"])
    return mine / "report.html"


@pytest.fixture(scope="module")
def run_page(browser, corpus, tmp_path_factory):
    """The report of a run of some steps, with its failures in the corpus."""
    from train.config import TrainConfig
    from train.loop import train

    run = tmp_path_factory.mktemp("run") / "run"
    config = {"corpus": corpus, "run": run, "batch": 16, "epochs": 1, "device": "cpu"}
    model = {"image_size": 32, "width": 16, "text_width": 16}
    loop = {"log_every": 1, "tensorboard": False}
    train(TrainConfig.model_validate(config | {"model": model, "loop": loop}))
    main([str(run), "--failures", "40"])
    return run / "report.html"


class Visit:
    """A tab on a page, and what its console said."""

    def __init__(self, browser, path, width=1200, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        self.errors = []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.on("request", lambda request: self.errors.append(request.url)
                     if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
        self.page.goto(path.as_uri())

    def fits(self):
        """Whether nothing makes the page wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def paper(self):
        return self.page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("name", ["corpus_page", "run_page"])
def test_a_report_in_a_browser(browser, name, request):
    path = request.getfixturevalue(name)
    wide, dark, phone = (
        Visit(browser, path), Visit(browser, path, scheme="dark"), Visit(browser, path, width=360)
    )  # fmt: skip
    assert wide.page.title().startswith(("Corpus ", "Run "))
    assert wide.fits()
    assert phone.fits()
    assert wide.paper() != dark.paper()
    broken = wide.page.evaluate(
        "Promise.all([...document.images].map(image => image.decode().then(() => 0, () => 1)))"
    )
    assert len(broken) > 5
    assert sum(broken) == 0
    # by keyboard: the first stop leads past the contents, and charts have their numbers
    wide.page.keyboard.press("Tab")
    assert wide.page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    numbers = wide.page.locator("figure details").first
    numbers.locator("summary").focus()
    wide.page.keyboard.press("Enter")
    assert numbers.locator("table").is_visible()
    unnamed = wide.page.evaluate(
        "[...document.querySelectorAll('[role=img], [role=region], nav, section')].filter("
        "e => !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')).length"
    )
    assert unnamed == 0
    for visit in (wide, dark, phone):
        assert visit.errors == []
        visit.page.context.close()


def test_contents_lead_to_every_part(browser, corpus_page):
    visit = Visit(browser, corpus_page)
    links = visit.page.locator("nav a")
    for i in range(links.count()):
        target = links.nth(i).get_attribute("href")
        assert visit.page.locator(f"section{target} h2").count() == 1
    links.last.click()
    assert visit.page.locator("section#card h2").is_visible()
    shown = visit.page.locator("#sample").inner_text()
    assert HARM[0] in shown
    assert "⟨U+202E⟩" in shown
    assert visit.errors == []
    visit.page.context.close()
