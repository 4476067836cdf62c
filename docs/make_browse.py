"""Take docs/images/browse.png: the page of `mfpo browse` on scenes, as headless Chromium shows it.

    mfpo scenes --num_samples 40 --output_dir scenes
    mfpo build --dataset scenes --annotations scenes/annotations.jsonl --output_dir scene-pairs
    mfpo browse --dataset scene-pairs --output_file page.html
    python docs/make_browse.py page.html

It needs Chromium.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chromium import browser

OUTPUT = Path(__file__).parent / "images" / "browse.png"
ROW = 4

with browser() as tab:
    tab.size(1100, 700)
    tab.open(Path(sys.argv[1]), "")
    tab.wait("document.body.dataset.ready")
    tab.run(f"void (location.hash = 'row=' + mfpo.state().found[{ROW - 1}])")
    # Pictures of the list come when scrolling has come to rest.
    time.sleep(2)
    tab.screenshot(OUTPUT)
Image.open(OUTPUT).convert("RGB").save(OUTPUT, optimize=True)
