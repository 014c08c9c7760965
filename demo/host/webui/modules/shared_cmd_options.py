"""The options of the command line. The host fills them in before it imports anything else of this package."""

from argparse import Namespace

cmd_opts = Namespace(data_dir="", ckpt_dir="", lora_dir="", api=True, nowebui=False, api_auth=None, no_half=False)
