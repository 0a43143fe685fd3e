"""Pictures of the reports for docs/: `python runs/screenshots.py CORPUS_REPORT RUN_REPORT`.

Each view is a width, a scheme of colours and the part of the page that it begins with. Needs
`make browser`. Colours are reduced to a palette, so that a picture stays under 150 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
MOST_BYTES = 150_000
# file in docs/, which page, part of it, width, height, scheme
VIEWS = (
    ("report-corpus.png", "corpus", "", 1160, 900, "light"),
    ("report-corpus-dark.png", "corpus", "#overlaps", 1160, 900, "dark"),
    ("report-corpus-phone.png", "corpus", "#download", 390, 844, "dark"),
    ("report-run.png", "run", "", 1160, 900, "light"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="what `wit report CORPUS` wrote")
    parser.add_argument("run", type=Path, help="what `wit report RUN ...` wrote")
    parser.add_argument("--out", type=Path, default=DOCS)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    args.out.mkdir(parents=True, exist_ok=True)

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no chromium: run `make browser`", file=sys.stderr)
        return 2
    pages = {"corpus": args.corpus.resolve(), "run": args.run.resolve()}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, which, part, width, height, scheme in VIEWS:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            tab = context.new_page()
            tab.goto(f"{pages[which].as_uri()}{part}")
            tab.wait_for_timeout(300)
            shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
            context.close()
            target = args.out / name
            for colours in (256, 128, 64, 32):
                shot.quantize(colours).save(target, optimize=True)
                if target.stat().st_size < MOST_BYTES:
                    break
            print(f"{target}: {target.stat().st_size:,} bytes")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
