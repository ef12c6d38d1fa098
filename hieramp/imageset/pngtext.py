"""Settings inside a PNG, added without decoding it: the same picture and settings make the same bytes."""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from hieramp.figures import SETTINGS_KEY

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 25  # the IHDR chunk: 13 bytes, and 12 of length, name and checksum


def with_settings(png: bytes, settings: Mapping[str, Any]) -> bytes:
    """The PNG with its settings in a compressed text chunk (zTXt); `hieramp.figures.read_settings` finds them."""
    assert png.startswith(SIGNATURE)
    text = json.dumps(settings, separators=(",", ":")).encode("latin-1")
    data = SETTINGS_KEY.encode() + b"\0\0" + zlib.compress(text, 9)  # keyword, end, method 0
    chunk = b"zTXt" + data
    framed = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:HEADER_END] + framed + png[HEADER_END:]
