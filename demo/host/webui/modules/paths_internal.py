"""Stands in for `modules.paths_internal`: the host's folders. It only writes below `data_path`."""

from pathlib import Path

from modules.shared_cmd_options import cmd_opts

project_path = str(Path(__file__).resolve().parents[4])
data_path = cmd_opts.data_dir
models_path = str(Path(data_path) / "models")
extensions_dir = str(Path(data_path) / "extensions")
