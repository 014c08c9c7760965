"""A stand-in for the WebUI: its package `modules`, as far as the extension meets it, and a page and an HTTP API around it."""
