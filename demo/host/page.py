"""The page of the embedded host: the controls of txt2img, the panels of all scripts, and a gallery."""

from __future__ import annotations

from typing import Any

import gradio as gr

from demo.host import startup


def build(prompt: str, cfg_scale: float, advice: str = "") -> gr.Blocks:
    """Builds the page. `prompt`, `cfg_scale`: its initial values. `advice`: a text about the models."""
    from modules import scripts, sd_models, sd_samplers, sd_samplers_kdiffusion, shared

    samplers = list(sd_samplers.all_samplers_map)
    schedule_types = ["Automatic", "Uniform", *(name.capitalize() for name in sd_samplers_kdiffusion.SCHEDULERS)]
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # gradio downloads its own fonts
    with gr.Blocks(theme, title="AnimateDiff on the embedded host") as blocks, gr.Row():
        with gr.Column():
            fields = {
                "prompt": gr.Textbox(prompt, label="Prompt", lines=2, elem_id="txt2img_prompt"),
                "negative_prompt": gr.Textbox("", label="Negative prompt"),
                "sampler_name": gr.Dropdown(samplers, value="DDIM", label="Sampling method", elem_id="txt2img_sampling"),
                "scheduler": gr.Dropdown(schedule_types, value="Automatic", label="Schedule type", elem_id="txt2img_scheduler"),
                "steps": gr.Slider(1, 100, 20, step=1, label="Sampling steps", elem_id="txt2img_steps"),
                "width": gr.Slider(64, 1024, startup.default_size(), step=8, label="Width", elem_id="txt2img_width"),
                "height": gr.Slider(64, 1024, startup.default_size(), step=8, label="Height", elem_id="txt2img_height"),
                "cfg_scale": gr.Slider(1, 30, cfg_scale, step=0.5, label="CFG scale", elem_id="txt2img_cfg_scale"),
                "seed": gr.Number(-1, label="Seed", precision=0),
            }
            # In the WebUI, this control of txt2img belongs to hires fix. The page has no hires fix.
            denoising = gr.Slider(0, 1, 0.75, visible=False, elem_id="txt2img_denoising_strength")
            scripts.scripts_txt2img.setup_ui()
            for control in (*fields.values(), denoising):
                scripts.scripts_txt2img.after_component(control)
        with gr.Column():
            button = gr.Button("Generate", variant="primary", elem_id="txt2img_generate")
            gallery = gr.Gallery(label="Output", elem_id="txt2img_gallery", show_label=False)
            log = gr.Textbox(label="Generation parameters", elem_id="txt2img_info", interactive=False)
            gr.Markdown(
                "Tick **AnimateDiff** to make a video; without it, Generate makes a still image. "
                f"This page plays GIF, WEBP and APNG. Files are in `{shared.opts.outdir_txt2img_samples}/AnimateDiff/<date>`."
                f"\n\n{advice}\n\n"
                f"Checkpoint: {sd_models.select_checkpoint().name}, on {shared.device}"
            )

    def generate(*values: Any) -> tuple[list[Any], str]:
        from modules.processing import StableDiffusionProcessingTxt2Img

        from demo.host.server import generate as run

        named = dict(zip(fields, values))
        for name in ("sampler_name", "scheduler"):
            if named[name] not in fields[name].choices:
                raise gr.Error(f"{fields[name].label} {named[name]} is not available on the embedded host. Choose another.")
        try:
            processed = run(StableDiffusionProcessingTxt2Img(**named), "txt2img", [0, *values[len(fields) :]])
        except Exception as error:
            raise gr.Error(getattr(error, "detail", "") or str(error)) from error
        shown = [getattr(picture, "already_saved_as", None) or picture for picture in processed.images]
        return shown, f"{processed.info}\n{processed.comments}".strip()

    with blocks:
        button.click(generate, [*fields.values(), *scripts.scripts_txt2img.inputs[1:]], [gallery, log])
    return blocks
