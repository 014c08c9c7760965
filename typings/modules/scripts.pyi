from types import ModuleType
from typing import Any

AlwaysVisible: object

class Script:
    is_img2img: bool
    infotext_fields: list[Any]
    paste_field_names: list[str]
    def title(self) -> str: ...
    def show(self, is_img2img: bool) -> Any: ...
    def ui(self, is_img2img: bool) -> list[Any]: ...
    def elem_id(self, item_id: str) -> str: ...

class ScriptClassData:
    script_class: type
    module: ModuleType

scripts_data: list[ScriptClassData]

def basedir() -> str: ...
