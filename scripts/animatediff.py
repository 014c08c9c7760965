"""The script that the WebUI loads. It only connects the WebUI's hooks with the package `animatediff`."""

import html
import sys
from pathlib import Path

from modules import errors, extensions, script_callbacks, scripts

ROOT = Path(scripts.basedir())


def _hindrance() -> str:
    """Returns why AnimateDiff cannot run here; empty if it can. Imports the package."""
    if conflict := _conflict():
        return conflict
    try:
        from animatediff.page import panel  # noqa: F401  # it needs everything that the WebUI may lack
    except (ImportError, AttributeError) as error:
        errors.report("AnimateDiff cannot be loaded", exc_info=True)
        return (
            f"AnimateDiff does not work in this WebUI, which lacks something that it needs ({error}). Update the WebUI, "
            "or use AUTOMATIC1111 1.10, reForge, Forge or Forge Neo."
        )
    return ""


def _conflict() -> str:
    """Returns which other extension hinders this one; empty if none does.

    sd-webui-animatediff has a top-level module `motion_module`, which is also the name of a package of ours.
    """
    for extension in extensions.active():
        path = Path(extension.path)
        if path != ROOT and (path / "motion_module.py").is_file() and (path / "scripts" / "animatediff.py").is_file():
            return (
                f"Another AnimateDiff extension is enabled: {extension.name}. The two cannot run together. "
                "Disable one of them in the Extensions tab and restart the WebUI."
            )
    loaded = getattr(sys.modules.get("motion_module"), "__file__", None)
    if loaded and ROOT.resolve() not in Path(loaded).resolve().parents:
        return "Another AnimateDiff extension has been running. Close the WebUI and start it again."
    return ""


if hindrance := _hindrance():

    class AnimateDiffIsOff(scripts.Script):
        """Shows on the page why AnimateDiff is off."""

        def title(self):
            return "AnimateDiff is off"

        def show(self, is_img2img):
            return scripts.AlwaysVisible

        def ui(self, is_img2img):
            import gradio as gr

            with gr.Accordion(self.title(), open=True):
                gr.HTML(f"<p>{html.escape(hindrance)}</p>", elem_id=self.elem_id("hindrance"))
            return []

    print(f"AnimateDiff is off: {hindrance}")

else:
    from animatediff import api, import_paths
    from animatediff.job import chosen_script, job, samplers
    from animatediff.page import (
        batch_tab,
        no_panel,
        panel,
        player,
        png_info,
        resume_button,
        settings_section,
        temporary_folder,
        timeline_page,
        train_page,
        xyz,
    )
    from animatediff.page.webui_controls import Page
    from animatediff.request import infotext

    class AnimateDiff(scripts.Script):
        def title(self):
            return "AnimateDiff"

        def show(self, is_img2img):
            return scripts.AlwaysVisible

        def ui(self, is_img2img):
            try:
                controls = panel.build(self._page(is_img2img))
            except Exception as error:  # a WebUI that builds the page for its API too would not start
                return no_panel.show(error, self.elem_id)
            self.infotext_fields = panel.paste_fields(controls)
            self.paste_field_names = list(infotext.READERS.values())
            return list(controls.values())

        def after_component(self, component, **kwargs):
            self._page(self.is_img2img).register(component, kwargs.get("elem_id"))

        def _page(self, is_img2img):
            """Returns the page's state, which is made once: some components come before `ui` is called, others after it."""
            return vars(self).setdefault("page", Page("img2img" if is_img2img else "txt2img"))

        def setup(self, p, *arguments):
            chosen_script.watch(p, arguments)

        def before_process(self, p, *arguments):
            job.begin(p, arguments)

        def after_extra_networks_activate(self, p, *arguments, **kwargs):
            if current := job.job_of(p):
                current.loras_activated()

        def process_before_every_sampling(self, p, *arguments, c, **kwargs):
            if current := job.job_of(p):
                current.before_sampler(c)

        def postprocess_maskoverlay(self, p, ppmo, *arguments):
            if current := job.job_of(p):
                current.use_mask(ppmo)

        def postprocess_image_after_composite(self, p, pp, *arguments):
            if current := job.job_of(p):
                current.add_frame(pp)

        def postprocess(self, p, processed, *arguments):
            if current := job.job_of(p):
                current.complete(processed)

    samplers.add_schedule_type()
    import_paths.register()
    batch_tab.replace_loop()
    for category, function in (
        ("script_unloaded", samplers.remove_schedule_type),
        ("script_unloaded", import_paths.unregister),
        ("script_unloaded", batch_tab.put_loop_back),
        ("ui_settings", settings_section.add_settings),
        ("ui_train_tabs", train_page.add_to_page),
        ("after_component", player.add_to_page),
        ("after_component", png_info.add_to_page),
        ("after_component", timeline_page.add_to_page),
        ("after_component", resume_button.add_to_page),
        ("infotext_pasted", infotext.expand_pasted),
        ("before_ui", xyz.add_axes),
        ("cfg_denoiser", job.on_step),
        ("app_started", api.add_routes),
        ("app_started", temporary_folder.make),
    ):
        # not by `on_…`: each of these looks for this file's name on the stack, which takes Forge 0.1 s
        callbacks = script_callbacks.callback_map[f"callbacks_{category}"]
        script_callbacks.add_callback(callbacks, function, category=category, filename=__file__)
