"""The script that is chosen by name, which generates instead of the WebUI: what it does with AnimateDiff's videos.

Some scripts generate once for each of their cells or prompts, and put the videos into their answer. Others make pictures of
their own, from the first frames or without any job of ours. The scripts' own `run` is replaced for the one call that follows.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from modules import shared

from motion_module.patching import patched

from ..errors import AnimateDiffError, RequestError
from ..interrupt import is_stopping
from ..output.results import WARNINGS
from ..request.reading import is_enabled

log = logging.getLogger("AnimateDiff")
RUN = "_animatediff_script_run"
"""The attribute of `p`, and of its copies, that holds the running `ScriptRun`."""
UNSUITABLE = {
    "sd upscale": "puts one picture together from tiles",
    "ultimate sd upscale": "puts one picture together from tiles",
    "outpainting mk2": "puts one picture together from its sides",
    "poor man's outpainting": "puts one picture together from tiles",
    "img2img alternative test": "samples in a way of its own, without motion",
}
"""Scripts that cannot make videos, and what they do."""
SWITCH_OFF = "Choose None under Script, or switch AnimateDiff off."


@dataclass
class ScriptRun:
    """What AnimateDiff has done within one run of a script."""

    title: str
    jobs: int = 0
    answers: list[Any] = field(default_factory=list)
    """The images of its jobs' answers."""
    error: AnimateDiffError | None = None
    """What ended the last job that failed: a script may swallow it."""

    def check(self, processed: Any) -> None:
        """Raises an exception if the script's answer could only be taken for a video, and adds a warning if it has none."""
        answers = {id(image) for image in self.answers}
        if is_stopping():
            return
        if any(id(image) in answers for image in processed.images):
            if self.error is not None:
                _warn(processed, f"The script “{self.title}” has left out a video: {self.error}")
            return
        if self.error is not None:
            raise self.error
        if not self.jobs:
            raise AnimateDiffError(f"The script “{self.title}” has generated without AnimateDiff. {SWITCH_OFF}")
        if answers:
            _warn(
                processed,
                f"The answer of the script “{self.title}” has no video, only pictures that it made of first frames. "
                f"{SWITCH_OFF} Or let the script list the pictures that it puts together, if it can.",
            )


def watch(p: Any, arguments: tuple[Any, ...]) -> None:
    """`setup`: if a script is chosen and AnimateDiff is on, checks what the script returns."""
    script = _chosen(p)
    if script is None or not _asks_for_video(arguments):
        return
    run, undo = ScriptRun(script.title()), ExitStack()
    generate = script.run

    def checked(its_p: Any, *its_arguments: Any) -> Any:
        undo.close()
        try:
            processed = generate(its_p, *its_arguments)
        finally:
            its_run = vars(its_p).pop(RUN, None)
            shared.state.textinfo = None  # of a copy's job that failed in a place that no hook of ours sees
        if its_run is run and processed is not None:
            run.check(processed)
        return processed

    setattr(p, RUN, run)
    undo.enter_context(patched(script, "run", checked))


def begun(p: Any) -> None:
    """Tells that AnimateDiff is on in a generation."""
    if run := _run_of(p):
        run.jobs += 1


def failed(p: Any, error: AnimateDiffError) -> None:
    """Tells that a job has failed."""
    if run := _run_of(p):
        run.error = error


def made(p: Any, images: list[Any]) -> None:
    """Tells the images of a job's answer."""
    if run := _run_of(p):
        run.answers += images


def require_suitable(p: Any) -> None:
    """Raises RequestError if the script that is chosen cannot make videos."""
    script = _chosen(p)
    title = script.title() if script else ""
    if what := UNSUITABLE.get(title.lower()):
        raise RequestError(f"The script “{title}” {what}, so it cannot make a video. {SWITCH_OFF}")


def advice(p: Any) -> str:
    """Returns who may have kept motion layers from acting, and what to do."""
    if script := _chosen(p):
        return (
            f"The script “{script.title()}”, or another extension, samples or calls the UNet in a way of its own. Choose None "
            "under Script, switch off extensions that do so, or switch AnimateDiff off."
        )
    return (
        "Another extension, or this WebUI itself, samples or calls the UNet in a way of its own. "
        "Switch off extensions that do so, or switch AnimateDiff off."
    )


def _run_of(p: Any) -> ScriptRun | None:
    run: ScriptRun | None = vars(p).get(RUN)
    return run


def _chosen(p: Any) -> Any:
    """Returns the script that is chosen by name; None if there is none.

    The infotext of an API request puts a text in the place of its number. The WebUI runs no script then.
    """
    number = p.script_args[0] if p.script_args else 0
    return p.scripts.selectable_scripts[number - 1] if isinstance(number, int) and number > 0 else None


def _asks_for_video(arguments: tuple[Any, ...]) -> bool:
    try:
        return is_enabled(arguments)
    except RequestError:
        return True  # the job will be refused


def _warn(processed: Any, text: str) -> None:
    log.warning(text)
    processed.comments += text + "\n"
    facts = processed.extra_generation_params
    processed.extra_generation_params = {**facts, WARNINGS: [*facts.get(WARNINGS, ()), text]}
