from collections.abc import Callable
from typing import Any

def create_refresh_button(
    refresh_component: Any, refresh_method: Callable[[], Any], refreshed_args: Callable[[], dict[str, Any]], elem_id: str
) -> Any: ...
