"""The six criteria of GPTEval3D, in the published order (an index into this tuple is a criterion there)."""

from __future__ import annotations

import re

CRITERIA = (
    "text_asset_alignment",
    "plausibility",
    "text_geometry_alignment",  # agreement of the texture with the geometry, whatever the short name suggests
    "texture_details",
    "geometry_details",
    "overall",
)
LABELS = {
    "text_asset_alignment": "Text-asset alignment",
    "plausibility": "3D plausibility",
    "text_geometry_alignment": "Text-geometry alignment",
    "texture_details": "Texture details",
    "geometry_details": "Geometry details",
    "overall": "Overall",
}
_INDEX = re.compile(r"\[?(\d+)\]?(\s.*)?")


def criterion_name(key: str | int) -> str:
    """Our name of a criterion that a published file calls 0, "0" or "[0] Text-Asset Alignment"; else as it
    is.
    """
    match = _INDEX.fullmatch(str(key).strip())
    if match and int(match[1]) < len(CRITERIA):
        return CRITERIA[int(match[1])]
    return str(key)
