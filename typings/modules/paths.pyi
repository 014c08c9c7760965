from modules.paths_internal import data_path as data_path
from modules.paths_internal import models_path as models_path

paths: dict[str, str]
