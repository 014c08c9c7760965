"""Types of what this project uses of the WebUI's package `modules`, for mypy. Nothing here runs.

`Any` stands for what the WebUI itself leaves open: the request `p`, a loaded model, whatever scripts add to either.
"""
