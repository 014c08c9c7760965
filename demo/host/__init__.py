"""The embedded host: a small stand-in for the WebUI, with a page, an HTTP API and those of its `modules` that we use."""
