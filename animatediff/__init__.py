"""The WebUI half of AnimateDiff: everything that knows AUTOMATIC1111's Stable Diffusion WebUI."""

__version__ = "0.1.0"
