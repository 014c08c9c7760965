from typing import Any

class OptionInfo:
    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: dict[str, Any] | None = None,
        *,
        section: tuple[str, str] | None = None,
        restrict_api: bool = False,
    ) -> None: ...
    def info(self, info: str) -> OptionInfo: ...
    def needs_reload_ui(self) -> OptionInfo: ...

class Options:
    data: dict[str, Any]
    enable_pnginfo: bool
    live_previews_enable: bool
    samples_save: bool
    sdxl_crop_left: int
    sdxl_crop_top: int
    show_progress_every_n_steps: int
    def add_option(self, key: str, info: OptionInfo) -> None: ...
    def save(self, filename: str) -> None: ...
    def set(self, key: str, value: Any) -> bool: ...
