"""Frames to video files. Nothing of the WebUI is imported here."""
