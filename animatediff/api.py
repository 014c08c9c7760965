"""The HTTP routes under `/animatediff/v1`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from secrets import compare_digest
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import errors, shared

from motion_module.errors import UserError

from . import __version__
from .errors import reported_to_user
from .job import resume_store
from .output import signed_links
from .page.gradio_versions import login_cookies
from .request import module_files
from .request.schema import schema


def add_routes(_page: Any, app: FastAPI) -> None:
    """Adds the routes if the WebUI's API is on.

    They ask for the password of `--api-auth` or the login of the page, if the WebUI has one of them. Either will do.
    """
    if not (shared.cmd_opts.api or shared.cmd_opts.nowebui):
        return
    guards = [Depends(_require_credentials)]
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
    misnamed = [_unusable(name, "Its name is not UTF-8. Rename the file.") for name in module_files.unusable_names()]
    return [_model(name) for name in module_files.names()] + misnamed


def _unusable(name: str, problem: str) -> dict[str, Any]:
    return {"name": name, "family": None, "max_frames": None, "problem": problem}


def _model(name: str) -> dict[str, Any]:
    try:
        description = module_files.what_it_is(module_files.find(name))
        family = description.require_motion_module()
    except UserError as error:
        return _unusable(name, str(error))
    except Exception:  # one file must not hide the others
        errors.report(f"{name} could not be described", exc_info=True)
        return _unusable(name, "It could not be described; the console has the details. Download it again, or report them.")
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


def _require_credentials(
    request: Request, credentials: HTTPBasicCredentials | None = Depends(HTTPBasic(auto_error=False))
) -> None:
    passwords, logins = shared.cmd_opts.api_auth, getattr(request.app, "auth", None) is not None
    if not (passwords or logins):
        return
    if (passwords and credentials and _is_user_of_api(credentials)) or (logins and _is_logged_in(request)):
        return
    if passwords:
        raise HTTPException(401, "The user name or the password is wrong. Check both.", {"WWW-Authenticate": "Basic"})
    raise HTTPException(401, "Not logged in. Log in on the page of the WebUI, or start it with --api-auth and send a password.")


def _is_user_of_api(credentials: HTTPBasicCredentials) -> bool:
    """Returns whether these are a user name and password of `--api-auth`."""
    users = dict(entry.split(":", 1) for entry in shared.cmd_opts.api_auth.split(","))
    expected = users.get(credentials.username)
    return expected is not None and compare_digest(credentials.password.encode(), expected.encode())


def _is_logged_in(request: Request) -> bool:
    """Returns whether a request has the cookie that gradio gave when its user logged in to the page."""
    return any(request.cookies.get(name) in request.app.tokens for name in login_cookies(request.app))
