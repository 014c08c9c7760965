"""The thresholds that the paper's claim has to reach in this world, fixed before any motion module was trained in it.

They are fractions of the clips of held-out prompts, as the judge reads them. Each is reported with its 95 % interval.
"""

from __future__ import annotations

BASE_PROMPTS, STYLE_PROMPTS = 200, 60
COLOUR_AND_SHAPE = 0.90
"""Clips with both the colour and the shape of the caption, on the base and on each personalised model."""
MOTION, MOTION_IN_STYLE = 0.85, 0.80
STYLE_KEPT = 0.90
CHANCE = {"shape": 0.45, "colour": 0.35, "background": 0.35, "motion": 0.30}
"""The most agreement allowed by chance: with the captions of other clips, and for the motion of frames made one by one. There
are four shapes, six colours and nine motions; the margin is for the uneven draw of pairs and the small number of clips."""
