"""Encodes frames as video files. Nothing here imports the WebUI."""
