"""ControlNet beside AnimateDiff: which pictures each unit takes, and its hints for each frame of a UNet call."""
