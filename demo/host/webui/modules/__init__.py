"""A stand-in for the WebUI's package `modules`: enough of it for the extension to run unchanged. See demo/README.md."""
