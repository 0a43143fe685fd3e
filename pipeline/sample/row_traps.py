"""Traps in the metadata: captions, duplicates of good pairs, and more pairs than the cap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count

from PIL import Image

from pipeline.sample.book import Book, Row, encode
from pipeline.sample.limits import BOILERPLATE_URLS, CAP
from pipeline.sample.server import site_key
from wit.schema import Reason

OVER_CAP_WORD = "sheet"
OVER_CAP_ROWS = CAP + 10

NO_TEXT = ("", None, "   ", "\n\t \r\n", "&nbsp;", "&#8203; &nbsp;")
TOO_SHORT = ("red", "dog", "a b", "star", "wallpaper", "IMG2041", "&amp;", "!!")
FOREIGN = (
    "ein kleiner roter Kreis über zwei blauen Quadraten auf einem grauen Hintergrund",
    "Die Kinder spielen am Nachmittag mit bunten Figuren aus Papier im Garten",
    "un petit cercle rouge au-dessus de deux carrés bleus sur un fond gris",
    "trois étoiles jaunes dessinées par les enfants de l'école pendant les vacances",
    "un pequeño círculo rojo encima de dos cuadrados azules sobre un fondo gris",
    "um pequeno círculo vermelho acima de dois quadrados azuis sobre um fundo cinzento",
    "un piccolo cerchio rosso sopra due quadrati blu su uno sfondo grigio chiaro",
    "een kleine rode cirkel boven twee blauwe vierkanten op een grijze achtergrond",
    "mały czerwony okrąg nad dwoma niebieskimi kwadratami na szarym tle",
    "маленький красный круг над двумя синими квадратами на сером фоне",
    "ένας μικρός κόκκινος κύκλος πάνω από δύο μπλε τετράγωνα σε γκρίζο φόντο",
    "دائرة حمراء صغيرة فوق مربعين أزرقين على خلفية رمادية",
    "עיגול אדום קטן מעל שני ריבועים כחולים על רקע אפור",
    "धूसर पृष्ठभूमि पर दो नीले वर्गों के ऊपर एक छोटा लाल वृत्त",
    "灰色の背景にある二つの青い四角の上の小さな赤い丸",
    "灰色背景上两个蓝色正方形上方的一个红色小圆圈",
    "회색 배경 위에 두 개의 파란 사각형 위에 있는 작은 빨간 원",
)
BOILERPLATE = (
    "Click here to enlarge the picture of the red star",
    "This image may be protected by copyright, blue ring or not",
    "Photo not available: please try the green square again later",
)
NO_QUERY = (
    "the annual report of the committee was published yesterday",
    "our new office is open from Monday to Friday",
    "my grandmother baking bread in her kitchen on Sunday morning",
    "a dog running along the beach with a stick",
    "how to repair an old bicycle in the garage at home",
    "the mayor opens the bridge after many years of work",
    "fresh vegetables from the market, sold by the farmer",
    "passengers waiting for the delayed train in the evening",
)
PLACEHOLDERS = ("No image available", "Product image 3", "alt text", "Stock photo!")
FILE_NAMES = (
    "IMG_2041.jpg",
    "red star final.png",
    "Screenshot 2020-01-01 at 10.00.00",
    "DSC 00412",
)
FEW_LETTERS = ("red star ----------", "***** blue ring *****", "1 | 2 | 3 | 4 | ... >>")
# what people's software makes of a caption, and what it must be again
BROKEN: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (lambda t: f"{t} &amp; more", lambda t: f"{t} & more"),
    (lambda t: f"{t} &amp;amp; more", lambda t: f"{t} & more"),
    (lambda t: f"&quot;{t}&quot;", lambda t: f'"{t}"'),
    (lambda t: f"{t} &#8211; draft &lt;1&gt;", lambda t: f"{t} – draft <1>"),
    (lambda t: t.replace(" ", "&nbsp;"), lambda t: t),
    (lambda t: f"{t} from the cafÃ© in GenÃ¨ve", lambda t: f"{t} from the café in Genève"),
    (lambda t: f"â€œ{t}â€\x9d", lambda t: f'"{t}"'),
    (lambda t: f"the artist’s work: {t}", lambda t: f"the artist's work: {t}"),
    (lambda t: f"itâ€™s {t}", lambda t: f"it's {t}"),
    (lambda t: f"  {t}\r\n\t by hand ", lambda t: f"{t} by hand"),
    (lambda t: f"{t}\x00\x07, by hand\u200b", lambda t: f"{t}, by hand"),
    (lambda t: f"{t} by Zoe\u0308", lambda t: f"{t} by Zoë"),
)
TRACKED: tuple[Callable[[str, int], str], ...] = (
    lambda url, n: f"{url}#photo-{n}",
    lambda url, n: f"{url}?utm_source=newsletter&utm_campaign=week-{n}",
    lambda url, n: f"{url}?fbclid=IwAR{n:08d}",
    lambda url, n: f"{url}?gclid=Cj0K{n:08d}#top",
    lambda url, n: _shout(url, n),
    lambda url, n: f"{_with_port(url)}#photo-{n}",
)


def add_duplicates(book: Book, copies: int) -> None:
    """Add `copies` rows for each way to repeat a good pair; no pair is repeated twice."""
    good = [row for row in book.rows if row.kind == "good"]
    large = iter([row for row in good if _is_large(book, row)])
    originals = iter([row for row in good if not _is_large(book, row)])
    for _ in range(copies):
        row = next(originals)
        book.add(Row("exact_copy", row.url, row.text, Reason.DUPLICATE_PAIR))
        for change in TRACKED:
            row = next(originals)
            book.add_loser(row, _tracked(row, change))
        for change in TRACKED[:2]:
            row = next(originals)
            book.add_loser(row, _retold(row, change))
        for same_text in (True, False):
            row = next(originals)
            text = row.text if same_text else next(book.pairs).text
            body = book.files[site_key(str(row.url))]
            book.add_loser(row, _moved(book, "same_bytes", text, Reason.DUPLICATE_IMAGE), body)
        for kind, alter in NEAR.items():
            row = next(large)
            with Image.open(BytesIO(book.files[site_key(str(row.url))])) as image:
                body = alter(image.convert("RGB"))
            book.add_loser(row, _moved(book, kind, row.text, Reason.NEAR_DUPLICATE_IMAGE), body)


NEAR: dict[str, Callable[[Image.Image], bytes]] = {
    "reencoded": lambda image: encode(image, "JPEG", quality=75),
    "other_format": lambda image: encode(image, "WEBP", quality=80),
    "resized": lambda image: encode(
        image.resize((image.width * 2 // 3, image.height * 2 // 3)), "JPEG", quality=85
    ),
    "cropped": lambda image: encode(
        image.crop((1, 1, image.width - 1, image.height - 1)), "JPEG", quality=90
    ),
}


def _is_large(book: Book, row: Row) -> bool:
    with Image.open(BytesIO(book.files[site_key(str(row.url))])) as image:
        return min(image.size) > 190


def _tracked(row: Row, change: Callable[[str, int], str]) -> Iterator[Row]:
    for n in count():
        yield Row("same_url_and_text", change(str(row.url), n), row.text, Reason.DUPLICATE_PAIR)


def _retold(row: Row, change: Callable[[str, int], str]) -> Iterator[Row]:
    for n in count(1):
        text = f"{row.text} Picture {n} of the day."
        yield Row("same_url_other_text", change(str(row.url), n), text, Reason.DUPLICATE_URL)


def _moved(book: Book, kind: str, text: str | None, reason: Reason) -> Iterator[Row]:
    url = book.url(kind)
    for n in count(1):
        yield Row(kind, url.replace(".jpg", f"-copy-{n}.jpg"), text, reason)


def _shout(url: str, n: int) -> str:
    """The URL with some letters of its host in upper case: the bits of n say which."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    bits = n + 1
    mixed = "".join(c.upper() if bits >> (i % 12) & 1 else c for i, c in enumerate(host))
    return f"{scheme}://{mixed}{slash}{path}"


def _with_port(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}:80/{path}"


def add_caption_traps(book: Book) -> None:
    """Add rows whose captions are missing, foreign, broken, boilerplate or about nothing asked."""
    for kind, texts, reason in (
        ("no_text", NO_TEXT, Reason.NO_TEXT),
        ("short_text", TOO_SHORT, Reason.TEXT_TOO_SHORT),
        ("foreign", FOREIGN, Reason.LANGUAGE),
        ("no_query", NO_QUERY, Reason.NO_QUERY),
    ):
        for text in texts:
            book.add(Row(kind, book.url(kind), text, reason))
    for _ in range(4):
        text = next(book.pairs).text
        long = (f"{text} " * (5_000 // len(text) + 1))[:5_000]
        book.add(Row("long_text", book.url("long_text"), long, Reason.TEXT_TOO_LONG))
    for text in BOILERPLATE:
        for _ in range(BOILERPLATE_URLS + 2):
            book.add(Row("boilerplate", book.url("boilerplate"), text, Reason.BOILERPLATE))
    for spoil, mend in BROKEN:
        pair = next(book.pairs)
        row = Row("broken", book.url("broken"), spoil(pair.text), None, mend(pair.text))
        book.add(row, encode(pair.image, "JPEG", quality=85))


def add_useless_captions(book: Book) -> None:
    """Add rows whose captions were written by software, and one URL that promises no picture."""
    for kind, texts, reason in (
        ("placeholder", PLACEHOLDERS, Reason.PLACEHOLDER),
        ("file_name", FILE_NAMES, Reason.FILE_NAME),
        ("few_letters", FEW_LETTERS, Reason.FEW_LETTERS),
    ):
        for text in texts:
            book.add(Row(kind, book.url(kind), text, reason))
    for _ in range(3):
        url = book.url("url_tail")
        name = url.rpartition("/")[2].removesuffix(".jpg")
        book.add(Row("url_tail", url, name.upper(), Reason.URL_TAIL))
    url = book.url("url_extension", "svg")
    book.add(Row("url_extension", url, next(book.pairs).text, Reason.URL_EXTENSION))


def add_over_cap(book: Book) -> None:
    """Add more pairs than the cap allows to one query, which nothing else brings in.

    They come from a site that has died but for every tenth picture: the cap counts pairs before
    anything is downloaded, and what it lets through may be gone.
    """
    rows = []
    for n in range(OVER_CAP_ROWS):
        url = f"http://www.sheets-archive.test/scans/{n:03d}.jpg"
        text = f"A {OVER_CAP_WORD} of assorted shapes, number {n + 1} of {OVER_CAP_ROWS}."
        rows.append(Row("at_cap", url, text))
    for i, row in enumerate(sorted(rows, key=lambda row: row.rank)):
        if i >= CAP:
            book.add(Row("over_cap", row.url, row.text, Reason.OVER_CAP))
        elif i % 10:
            book.add(Row("at_cap_dead", row.url, row.text, Reason.HTTP_404))
        else:
            book.add(row, encode(next(book.pairs).image, "JPEG", quality=85))
