"""AnimateDiff's motion modules: reads their files, runs them in a Stable Diffusion UNet, and trains them.

Guo et al., "AnimateDiff: Animate Your Personalized Text-to-Image Diffusion Models without Specific Tuning",
arXiv 2307.04725. This package does not depend on the WebUI: torch, numpy and safetensors are all it needs to generate.
"""
