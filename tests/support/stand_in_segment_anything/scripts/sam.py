"""A stand-in for sd-webui-segment-anything: what sd-webui-replacer imports of it when it builds its tab."""

import gradio as gr

sam_model_list: list[str] = []


def refresh_sam_models(*names):
    return gr.Dropdown.update(choices=sam_model_list)
