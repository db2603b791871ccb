"""Secrets of the raters: one random token each, known to whoever makes the study and to that rater alone.

The page is public, so it holds each rater's session only sealed: encrypted under the token, and listed under
a hash of it. Answer files are signed with the token. A token has some 99 random bits, so nobody can try them
all; all of it needs only SHA-256, because a browser offers its own cryptography only on https.

    name      first 24 digits of H("name", study, token)
    box       JSON of the session, xor H("box", study, token, 0) H("box", study, token, 1) ...
    signature H("signature", token, H(text))            H: SHA-256 of the parts, joined by line breaks

assets/session.js does the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from typing import Any

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without letters and digits that look alike
_GROUPS, _GROUP = 4, 5


def new_token() -> str:
    """A random token such as 7KQ2M-9XWVA-C4TEH-JRB8N."""
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def name_of(study: str, token: str) -> str:
    """The name of a rater's sealed session on the page."""
    return _hash("name", study, token)[:24]


def seal(study: str, token: str, content: Any) -> str:
    """JSON, encrypted under the token; hexadecimal. Once per token, or always of the same content."""
    return _xor(json.dumps(content, separators=(",", ":")).encode(), study, token).hex()


def unseal(study: str, token: str, box: str) -> Any:
    """The content of `seal`."""
    return json.loads(_xor(bytes.fromhex(box), study, token))


def sign(token: str, text: str) -> str:
    """The signature of a text."""
    return _hash("signature", token, hashlib.sha256(text.encode()).hexdigest())


def is_signed(token: str, text: str, signature: str) -> bool:
    """Whether a signature was made with this token, for this text."""
    return hmac.compare_digest(sign(token, text).encode(), signature.encode())


def _xor(data: bytes, study: str, token: str) -> bytes:
    blocks = (bytes.fromhex(_hash("box", study, token, str(i))) for i in range(-(-len(data) // 32)))
    return bytes(a ^ b for a, b in zip(data, b"".join(blocks), strict=False))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
