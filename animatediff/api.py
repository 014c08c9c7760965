"""The HTTP routes under `/animatediff/v1`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from secrets import compare_digest
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import shared

from motion_module.weight_files import CheckpointError

from . import __version__
from .errors import reported_to_user
from .job import resume_store
from .output import signed_links
from .request import module_files
from .request.schema import schema


def add_routes(_page: Any, app: FastAPI) -> None:
    """Adds the routes if the WebUI's API is on. They ask for the password of `--api-auth`, if one is set."""
    if not (shared.cmd_opts.api or shared.cmd_opts.nowebui):
        return
    guards = [Depends(_require_credentials)] if shared.cmd_opts.api_auth else []
    answers = {
        "version": lambda: {"version": __version__},
        "models": _models,
        "schema": schema,
        "unfinished": resume_store.descriptions,
    }
    for name, answer in answers.items():
        app.get(f"/animatediff/v1/{name}", dependencies=guards)(_in_sentences(answer))
    app.delete("/animatediff/v1/unfinished/{key}", dependencies=guards)(_in_sentences(_delete_unfinished))
    app.get(signed_links.ROUTE, dependencies=guards)(_in_sentences(_video))


def _in_sentences(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a route whose unexpected errors are answered with a sentence, and are in the log."""

    @functools.wraps(answer)  # the route's parameters are read from its signature
    def answered(*args: Any, **kwargs: Any) -> Any:
        with reported_to_user("answering a request"):
            return answer(*args, **kwargs)

    return answered


def _video(file: str, key: str) -> FileResponse:
    path = signed_links.linked(file, key)
    if path is None:
        raise HTTPException(404, "This link is not valid: the video is gone, or the WebUI has restarted. Make the video again.")
    return FileResponse(path, filename=path.name)


def _delete_unfinished(key: str) -> None:
    video = resume_store.keyed(key)
    if video is None:
        raise HTTPException(
            404, "There is no unfinished video with this key. GET /animatediff/v1/unfinished lists the unfinished videos."
        )
    video.delete()


def _models() -> list[dict[str, Any]]:
    """Describes every file in the folder of motion modules: its family, its authors' settings, or why it cannot be used."""
    return [_model(name) for name in module_files.names()]


def _model(name: str) -> dict[str, Any]:
    try:
        description = module_files.what_it_is(module_files.find(name))
        family = description.require_motion_module()
    except (CheckpointError, ValueError) as error:
        return {"name": name, "family": None, "max_frames": None, "problem": str(error)}
    advice = family.advice
    return {
        "name": name,
        "family": family.key,
        "title": family.title,
        "base": family.base,
        "assumed": bool(description.assumed),
        "max_frames": description.length,
        "frames": module_files.trained_frames(description, family),
        "lora": family.lora or None,
        "settings": {
            "sampler_name": advice.sampler,
            "scheduler": advice.schedule_type,
            "steps": advice.steps,
            "cfg_scale": advice.cfg,
            "side": advice.side or None,
            "motion_scale": advice.motion_scale,
            "denoising_strength": advice.denoising,
        },
        "problem": None,
    }


def _require_credentials(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:
    users = dict(entry.split(":", 1) for entry in shared.cmd_opts.api_auth.split(","))
    expected = users.get(credentials.username)
    if expected is None or not compare_digest(credentials.password.encode(), expected.encode()):
        raise HTTPException(401, "Incorrect user name or password", {"WWW-Authenticate": "Basic"})
