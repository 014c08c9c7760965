from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

@dataclass
class ParamBinding:
    paste_button: Any
    tabname: str
    source_text_component: Any = None
    source_image_component: Any = None
    source_tabname: str | None = None

class PasteField(tuple[Any, ...]):
    def __new__(cls, component: Any, target: str | Callable[[dict[str, Any]], Any]) -> PasteField: ...

def register_paste_params_button(binding: ParamBinding) -> None: ...
