"""The six criteria of GPTEval3D in the published order, which defines their indices."""

from __future__ import annotations

import re

CRITERIA = (
    "text_asset_alignment",
    "plausibility",
    "text_geometry_alignment",  # means texture-geometry agreement, despite its name
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
    """Our name for a published criterion such as 0, "0" or "[0] Text-Asset Alignment"; others unchanged."""
    match = _INDEX.fullmatch(str(key).strip())
    if match and int(match[1]) < len(CRITERIA):
        return CRITERIA[int(match[1])]
    return str(key)
