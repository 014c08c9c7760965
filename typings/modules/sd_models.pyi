from typing import Any

class CheckpointInfo:
    filename: str
    title: str
    short_title: str

class SdModelData:
    sd_model: Any

checkpoints_list: dict[str, CheckpointInfo]
model_data: SdModelData

def apply_alpha_schedule_override(sd_model: Any, p: Any = None) -> None: ...
def get_closet_checkpoint_match(search_string: str) -> CheckpointInfo | None: ...
def list_models() -> None: ...
def reload_model_weights(sd_model: Any = None, info: CheckpointInfo | None = None) -> Any: ...
