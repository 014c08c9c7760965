"""The WebUI runs this at every start.

Everything that the extension needs comes with the WebUI, so nothing is installed and no version that it pins is moved.
"""
