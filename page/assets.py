"""What a browser needs to draw the page, read once and kept: a fleet's page is opened in a moment or not at all.

Scripts lie below a folder named after what is in them, so that a browser may keep them for good: what has changed has
another name. Style stands in the document itself, named by its hash: one request less before the first picture.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_STYLE = '<link rel="stylesheet" href="/static/page.css">'


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """The page's files."""

    document: bytes
    style_hash: str
    """As a content security policy names it."""
    version: str
    files: dict[str, tuple[bytes, str]]
    """By name, what is in it and of which type."""


def read(folder: Path = STATIC) -> Assets:
    """The files of a folder, with the names that they have for browsers."""
    files = {
        path.name: (path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }
    version = hashlib.sha256(b"".join(name.encode() + data for name, (data, _) in files.items())).hexdigest()[:12]
    style = (folder / "page.css").read_text()
    text = (folder / "index.html").read_text()
    assert _STYLE in text and "</style" not in style
    text = text.replace(_STYLE, f"<style>{style}</style>").replace("/static/", f"/static/{version}/")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return Assets(document=text.encode(), style_hash=f"'sha256-{digest}'", version=version, files=files)
