"""Saves finished frames and videos, and puts them into the WebUI's answer."""
