"""Hold plotly.js for the page: the basic bundle (scatter and bar traces), compressed, with its licence.

Source: plotly.js-basic-dist-min 4.1.1 of npm, file plotly-basic.min.js, compressed with `gzip -9n`. It is a
quarter of the full bundle in the Python package plotly, and it compiles no text to code, so the page needs
no `unsafe-eval`. To renew it: take the version that `plotly.offline.get_plotlyjs_version()` returns, and
change VERSION and SHA256.
"""

from __future__ import annotations

import base64
from pathlib import Path

VERSION = "4.1.1"
"""Version of plotly.js; equal to that of the Python package plotly, which writes the specs."""

SHA256 = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
"""Checksum of the uncompressed plotly-basic.min.js, as published."""

NOTICE = f"plotly.js {VERSION} (basic bundle), copyright 2012-2026 Plotly, Inc., MIT licence"
"""Copyright notice that the page carries, as the licence asks."""

COMPRESSED = Path(__file__).parent / "plotly-basic.min.js.gz"


def compressed_plotlyjs() -> str:
    """Return the compressed bundle as base64; the browser decompresses it."""
    return base64.b64encode(COMPRESSED.read_bytes()).decode("ascii")
