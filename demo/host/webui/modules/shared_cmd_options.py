"""Stands in for `modules.shared_cmd_options`. The host fills the options in before it imports anything else of `modules`."""

from argparse import Namespace

cmd_opts = Namespace(data_dir="", ckpt_dir="", lora_dir="", api=True, nowebui=False, api_auth=None, no_half=False)
