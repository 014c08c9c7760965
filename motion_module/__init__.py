"""AnimateDiff's motion modules: reading them, running them inside a Stable Diffusion UNet.

Guo et al., "AnimateDiff: Animate Your Personalized Text-to-Image Diffusion Models without Specific Tuning",
arXiv 2307.04725. This package knows nothing of the WebUI: torch, numpy and safetensors are all it needs.
"""
