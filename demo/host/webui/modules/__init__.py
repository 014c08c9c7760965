"""Enough of the WebUI's package `modules` for the extension to run unchanged. What it does is written in demo/README.md."""
