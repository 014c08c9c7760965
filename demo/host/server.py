"""The web server of the embedded host: its page, and the part of the WebUI's HTTP API that it has.

python -m demo.host.server --data-dir DIR --ckpt-dir DIR --port N
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import io
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from PIL import Image

from demo.host import page, startup

UNSUPPORTED = {"mask": "masks", "infotext": "infotexts in requests"}
"""The fields of a request that the embedded host does not support, each with a description for the error."""
DTYPES = ("float32", "float16", "bfloat16")


def serve(
    port: int | None,
    prompt: str = "",
    cfg_scale: float = 7.0,
    advice: str = "",
    api_auth: str | None = None,
    gradio_auth: str | None = None,
    open_browser: bool = False,
) -> None:
    """Serves until Ctrl-C. Call `startup.start` first. Without a port, it uses gradio's default, or the next free one.

    `prompt`, `cfg_scale`: the initial values of the page. `advice`: a text about the models, shown on it.
    """
    from modules import script_callbacks, shared

    vars(shared.cmd_opts).update(api_auth=api_auth, gradio_auth=gradio_auth)
    blocks = page.build(prompt, cfg_scale, advice)
    allowed = [shared.cmd_opts.data_dir, samples_folder("txt2img")]
    app, url, _ = blocks.queue().launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=allowed,
        auth=tuple(gradio_auth.split(":", 1)) if gradio_auth else None,
        inbrowser=open_browser,
    )
    add_routes(app)
    script_callbacks.call("app_started", blocks, app)
    print(f"Running on {url} until Ctrl-C is pressed.", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        blocks.close(verbose=False)


def add_routes(app: FastAPI) -> None:
    """Adds the supported routes of the WebUI, under `/sdapi/v1`."""
    routes: dict[str, dict[str, Callable[..., Any]]] = {
        "GET": {
            "options": get_options,
            "progress": get_progress,
            "memory": get_memory,
            "scripts": get_scripts,
            "script-info": get_script_info,
        },
        "POST": {
            "options": set_options,
            "txt2img": txt2img,
            "img2img": img2img,
            "png-info": png_info,
            "interrupt": interrupt,
            "skip": skip,
        },
    }
    for method, endpoints in routes.items():
        for name, endpoint in endpoints.items():
            app.add_api_route(f"/sdapi/v1/{name}", endpoint, methods=[method])


def get_options() -> dict[str, Any]:
    from modules.shared import opts

    return {key: getattr(opts, key) for key in opts.data_labels}


def set_options(changes: dict[str, Any] = Body(...)) -> None:
    from modules import call_queue, sd_models, shared

    with call_queue.queue_lock:
        for key, value in changes.items():
            shared.opts.set(key, value, is_api=True)
        sd_models.reload_model_weights()


def get_progress(skip_current_image: bool = False) -> dict[str, Any]:
    from modules import sd_samplers
    from modules.shared import state

    latents = None if skip_current_image or not state.job else state.current_latent
    image = state.current_image if latents is None else sd_samplers.samples_to_image_grid(latents)
    picture = None if image is None or skip_current_image else encode_picture(image)
    return {"progress": state.progress(), "textinfo": state.textinfo, "current_image": picture}


def get_memory() -> dict[str, Any]:
    """Returns the bytes that torch has allocated on the device, and their peak since the last request began."""
    from modules import devices

    if devices.device.type != "cuda":
        return {"cuda": {"error": "CUDA is not used"}}
    facts = torch.cuda.memory_stats()
    return {"cuda": {"allocated": {when: facts[f"allocated_bytes.all.{when}"] for when in ("current", "peak")}}}


def get_scripts() -> dict[str, list[str]]:
    return {tab: [script.title().lower() for script in runner.alwayson_scripts] for tab, runner in _runners().items()}


def get_script_info() -> list[dict[str, Any]]:
    """Returns the controls of every script."""
    answer = []
    for runner in _runners().values():
        for script in runner.alwayson_scripts:
            controls = [{"label": control.label, "value": control.value} for control in script.controls]
            answer.append({"name": script.title().lower(), "is_img2img": runner.is_img2img, "args": controls})
    return answer


def interrupt() -> dict[str, Any]:
    from modules.shared import state

    state.interrupt()
    return {}


def skip() -> None:
    from modules.shared import state

    state.skip()


def png_info(request: dict[str, Any] = Body(...)) -> dict[str, Any]:
    from modules import images
    from modules.infotext_utils import parse_generation_parameters

    text = images.read_infotext(decode_picture(request["image"]))
    return {"info": text, "parameters": parse_generation_parameters(text)}


def txt2img(request: dict[str, Any] = Body(...)) -> Any:
    from modules import processing

    return _answer(request, processing.StableDiffusionProcessingTxt2Img, "txt2img")


def img2img(request: dict[str, Any] = Body(...)) -> Any:
    from modules import processing

    request = {**request, "init_images": [decode_picture(text) for text in request["init_images"]]}
    return _answer(request, processing.StableDiffusionProcessingImg2Img, "img2img")


def _answer(request: dict[str, Any], kind: Any, tab: str) -> Any:
    """Returns the answer to a request, or the error that ended it, in the WebUI's format."""
    try:
        return _generate(request, kind, tab)
    except HTTPException as error:
        return JSONResponse({"error": "HTTPException", "detail": error.detail, "errors": ""}, error.status_code)
    except Exception as error:
        traceback.print_exc()
        return JSONResponse({"error": type(error).__name__, "detail": "", "errors": str(error)}, 500)


def _generate(request: dict[str, Any], kind: Any, tab: str) -> dict[str, Any]:
    for name, what in UNSUPPORTED.items():
        if request.get(name):
            raise HTTPException(422, f"The embedded host does not support {what}. Use the WebUI.")
    supported = {field.name for field in dataclasses.fields(kind) if field.init}
    values = {name: value for name, value in request.items() if name in supported and value is not None}
    values["do_not_save_samples"] = values["do_not_save_grid"] = not request.get("save_images", False)
    arguments = script_arguments(tab, request.get("alwayson_scripts") or {})
    if name := request.get("script_name"):
        choose_script(tab, name, request.get("script_args") or [], arguments)
    processed = generate(kind(**values), tab, arguments, is_api=True)
    pictures = processed.images if request.get("send_images", True) else []
    repeated = {**request, "init_images": None}
    return {"images": [encode_picture(picture) for picture in pictures], "parameters": repeated, "info": processed.js()}


def generate(p: Any, tab: str, arguments: list[Any], is_api: bool = False) -> Any:
    """Runs one request, while no other one runs."""
    from modules import call_queue, devices, processing, shared

    with call_queue.queue_lock, closing(p):
        p.is_api, p.scripts, p.script_args = is_api, _runners()[tab], tuple(arguments)
        p.outpath_samples = samples_folder(tab)
        p.scripts.setup(p)
        shared.state.begin(tab)
        if devices.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            return p.scripts.run(p, *p.script_args) or processing.process_images(p)
        finally:
            shared.state.end()


def samples_folder(tab: str) -> str:
    """Returns the folder for a tab's pictures: the setting, which may be relative to the data folder."""
    from modules import shared

    return str(Path(shared.cmd_opts.data_dir, getattr(shared.opts, f"outdir_{tab}_samples")))


def script_arguments(tab: str, alwayson: dict[str, Any]) -> list[Any]:
    """Returns the arguments of all scripts: the request's, and defaults for the others."""
    runner = _runners()[tab]
    arguments = runner.default_arguments()
    for name, entry in alwayson.items():
        script = runner.find(name)
        if script is None:
            raise HTTPException(422, f"always on script {name} not found")
        given = entry.get("args", [])[: script.args_to - script.args_from]
        arguments[script.args_from : script.args_from + len(given)] = given
    return arguments


def choose_script(tab: str, name: str, given: list[Any], arguments: list[Any]) -> None:
    """Puts a script that is chosen by name, and its own arguments, into the arguments of all scripts."""
    runner = _runners()[tab]
    try:
        arguments[0] = runner.number_of(name)
    except ValueError as error:
        raise HTTPException(422, f"Script '{name}' not found") from error
    script = runner.selectable_scripts[arguments[0] - 1]
    arguments[script.args_from : script.args_to] = given


def encode_picture(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decode_picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2])))


def _runners() -> dict[str, Any]:
    from modules import scripts

    return {"txt2img": scripts.scripts_txt2img, "img2img": scripts.scripts_img2img}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ckpt-dir", type=Path, required=True)
    parser.add_argument("--lora-dir", type=Path, default=Path("lora"), help="may be relative to the data folder")
    parser.add_argument("--port", type=int)
    parser.add_argument("--api-auth", help="USER:PASSWORD for the routes of extensions; the host's own routes need none")
    parser.add_argument("--gradio-auth", help="USER:PASSWORD for the page and the routes of extensions")
    parser.add_argument("--dtype", choices=DTYPES, help="of the model: by default, float16 on CUDA and float32 elsewhere")
    options = parser.parse_args()
    data_dir = options.data_dir.absolute()
    startup.start(data_dir, options.ckpt_dir.absolute(), data_dir / options.lora_dir, dtype=options.dtype)
    serve(options.port, api_auth=options.api_auth, gradio_auth=options.gradio_auth)


if __name__ == "__main__":
    main()
