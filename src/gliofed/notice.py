"""The notice that stands wherever a prediction, a figure or a segmentation is shown."""

from __future__ import annotations

from typing import Final

RESEARCH_USE_ONLY: Final = "Research use only. Not a medical device."
