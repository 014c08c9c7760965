from typing import Any

current_unet: Any

def get_unet_option(option: str | None = None) -> Any: ...
