"""Self-contained HTML: one file with styles, script and pictures inside, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

TEMPLATES = "templates"
SCRIPTS = ("dom.js", "items.js")

KEYWORD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6fd1", "#7a7f87")
"""Colours of a row's keywords by rank, after Okabe and Ito; colour-blind readers can tell them apart."""


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a page template. Every value is escaped unless it is already ``Markup``.

    The page carries a content security policy that admits embedded pictures, styles and the one script with
    the hash of [`SCRIPTS`]: text of a dataset could not run or load anything even if it slipped through.

    Args:
        template: Name of a file in ``report/templates``.
        context: Its variables.
    """
    return _environment().get_template(template).render(context)


def data_uri(
    picture: Image.Image, max_side: int | None = None, *, lossless: bool = False, quality: int = 82
) -> str:
    """A picture as a ``data:`` URI.

    Args:
        picture: The picture.
        max_side: It is made smaller until its longer side has at most this many pixels.
        lossless: PNG instead of JPEG; for masks, drawings with transparency and very small pictures.
        quality: JPEG quality.
    """
    if max_side is not None and max(picture.size) > max_side:
        picture = picture.copy()
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    data, kind = encode_picture(picture, lossless=lossless, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encode_picture(
    picture: Image.Image, *, lossless: bool = False, quality: int = 82, progressive: bool = True
) -> tuple[bytes, str]:
    """A picture as a file's bytes, and the format's name (``png`` or ``jpeg``); see [`data_uri`]."""
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"
    picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, progressive=progressive)
    return buffer.getvalue(), "jpeg"


def embedded_json(value: Any) -> str:
    """JSON that is safe inside a script element of HTML: nothing in it can end the element or begin another.

    Raises:
        ValueError: There is a number that JSON does not have.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # A lone surrogate has no UTF-8; it only comes from damaged text.
    return text.encode("utf-8", "replace").decode()


def asset(*names: str) -> Markup:
    """Files of ``report/templates``, one after the other; ours, so nothing in them is escaped."""
    folder = resources.files("mfpo.report").joinpath(TEMPLATES)
    return Markup("\n".join(folder.joinpath(name).read_text("utf-8").strip() for name in names))


def csp_hash(text: str) -> str:
    """How a content security policy names a script or style that it admits."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def tell_written(path: Path, detail: str = "") -> None:
    """Say where a page is, and how to open it."""
    print(f"written to {path} ({detail})" if detail else f"written to {path}")
    print(f"open in a browser: {path.resolve().as_uri()}")


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mfpo.report", TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = asset(*SCRIPTS)
    environment.globals.update(
        page_script=script, page_script_hash=Markup(csp_hash(script)), keyword_colours=KEYWORD_COLOURS
    )
    environment.filters.update(grouped=_grouped, percent=_percent, metric=_metric)
    return environment


def _grouped(number: int) -> str:
    """A count with its thousands set apart."""
    return f"{number:,}"


def _percent(share: float) -> str:
    """A share of [0, 1] as a percentage, with a digit more where it is small."""
    return f"{100 * share:.1f}%" if share < 0.1 else f"{100 * share:.0f}%"


def _metric(name: str) -> Markup:
    """A metric's name with single letters set as subscripts: ``CHAIR_s_refine``."""
    stem, *parts = name.split("_")
    return Markup("{}").format(stem) + Markup("").join(
        Markup("<sub>{}</sub>" if len(part) == 1 else " {}").format(part) for part in parts
    )
