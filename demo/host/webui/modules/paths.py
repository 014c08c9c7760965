"""The WebUI has its paths under this name too."""

from modules.paths_internal import data_path, extensions_dir, project_path

__all__ = ["data_path", "extensions_dir", "paths", "project_path"]

paths = {"Stable Diffusion": project_path}
"""Where the WebUI has its parts. Here, LDM's classes are an installed package."""
