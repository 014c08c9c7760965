from argparse import Namespace
from typing import Any

from modules.options import OptionInfo as OptionInfo
from modules.options import Options
from modules.shared_state import State
from modules.util import natural_sort_key as natural_sort_key
from modules.util import walk_files as walk_files

cmd_opts: Namespace
config_filename: str
demo: Any
hide_dirs: dict[str, bool]
opts: Options
prompt_styles: Any
sd_model: Any
state: State
