"""What the live tests look at, and what they break on purpose, inside a running WebUI."""
