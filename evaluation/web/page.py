"""Parts of a page that opens from disk: its data, and a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).with_name("assets")


def inline_json(data: Any) -> str:
    """JSON for a script element or file: no text in it can close the element, whatever it contains."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def hashed(text: str) -> str:
    """The source expression of an inline script or style for a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(**sources: str) -> str:
    """A content security policy: nothing but these sources, such as `img_src="data:"`."""
    allowed = {"default_src": "'none'"} | sources | {"form_action": "'none'", "base_uri": "'none'"}
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in allowed.items())
