"""From finished frames to files and to the WebUI's answer."""
