from typing import Any

from modules.processing import Processed

def process_batch(
    p: Any,
    input: Any,
    output_dir: str,
    inpaint_mask_dir: str,
    args: Any,
    to_scale: bool = False,
    scale_by: float = 1.0,
    use_png_info: bool = False,
    png_info_props: Any = None,
    png_info_dir: str | None = None,
) -> Processed | None: ...
def process_images(p: Any) -> Processed: ...
