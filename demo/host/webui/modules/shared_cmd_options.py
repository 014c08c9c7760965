"""Stands in for `modules.shared_cmd_options`. The host fills the options in before it imports anything else of `modules`."""

from argparse import Namespace

cmd_opts = Namespace(
    data_dir="",
    ckpt_dir="",
    lora_dir="",
    api=True,
    nowebui=False,
    api_auth=None,
    gradio_auth=None,
    gradio_auth_path=None,
    webui_is_non_local=False,
    hide_ui_dir_config=False,
    dtype=None,
)
