"""As in that extension, this script imports the others, so that they can be imported by other extensions too."""

from scripts import dino, sam  # noqa: F401
