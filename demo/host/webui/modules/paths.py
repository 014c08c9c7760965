"""Stands in for `modules.paths`, which repeats the paths of `modules.paths_internal`."""

from modules.paths_internal import data_path, extensions_dir, project_path

__all__ = ["data_path", "extensions_dir", "paths", "project_path"]

paths = {"Stable Diffusion": project_path}
"""The folders of repositories that the WebUI uses. Here, LDM is an installed package, so any folder will do."""
