"""Take docs/images/report.png: items of a report, as headless Chromium shows them.

    mfpo scenes --train_model runs/llava
    SCENES=60 examples/evaluate.sh runs/llava runs/evaluate
    python docs/make_report.py runs/evaluate/report.html

It needs Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chromium import browser

OUTPUT = Path(__file__).parent / "images" / "report.png"

with browser() as tab:
    tab.size(1100, 800)
    tab.open(Path(sys.argv[1]))
    tab.wait("document.querySelector('#item-list .answer img').naturalWidth > 0")
    tab.run("void scrollTo(0, document.getElementById('items').offsetTop)")
    tab.screenshot(OUTPUT)
Image.open(OUTPUT).convert("RGB").save(OUTPUT, optimize=True)
