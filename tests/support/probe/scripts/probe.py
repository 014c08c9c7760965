"""A test-only extension: routes under /probe/v1/ that inspect the running WebUI, or break it on purpose.

The functions and classes of the package `webui_probe` document the answers that they make.
"""

from __future__ import annotations

from typing import Any

from modules import script_callbacks, scripts
from webui_probe import routes, text_encoder

text_encoder.register()


class ProbeScript(scripts.Script):
    """Does what other extensions do in the hooks in which they do it: starts nested jobs, adds words to prompts."""

    def title(self) -> str:
        return "Probe"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def process(self, p: Any, *args: Any) -> None:
        routes.added_words.hook_called("process", p.all_prompts)

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        routes.added_words.hook_called("before_process_batch", p.prompts)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        routes.reference.about_to_sample(p)
        routes.effective_weights.about_to_sample()
        routes.nested.hook_called("process_before_every_sampling", p)
        routes.bypass.about_to_sample(p)

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        routes.nested.hook_called("postprocess_image", p)
        routes.other_frames.hook_called(p, pp)

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        routes.nested.hook_called("postprocess_batch", p)


def disarm_all() -> None:
    """Undoes whatever is armed; called when the WebUI reloads its scripts."""
    routes.recorder.disarm()
    routes.dtypes.arm(False)
    routes.fault.disarm()
    routes.full_memory.disarm()
    routes.same_noise.arm(False)
    routes.other_frames.arm([])
    routes.reference.disarm()
    routes.bypass.disarm()
    routes.wrapped_block.disarm()


script_callbacks.on_model_loaded(routes.identity.model_loaded)
script_callbacks.on_cfg_denoiser(lambda _params: routes.interrupter.denoiser_called())
script_callbacks.on_before_image_saved(routes.gallery.before_image_saved)
script_callbacks.on_image_saved(routes.gallery.image_saved)
script_callbacks.on_cfg_denoiser(lambda _params: routes.bypass.denoiser_called())
script_callbacks.on_app_started(routes.add_routes)
script_callbacks.on_script_unloaded(disarm_all)
