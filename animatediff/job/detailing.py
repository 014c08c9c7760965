"""Subjects of a job's finished videos are made again, before anything is written."""

from __future__ import annotations

from typing import Any

from modules import devices, shared
from PIL import Image

from ..detailer import detector_files
from ..detailer.detail import Around, Detailed, detailed
from ..detailer.detectors import Detector, detector
from ..detailer.nested import Nested
from ..detailer.yolo import yolo_detector
from ..errors import AnimateDiffError, failure
from ..interrupt import is_interrupted
from ..output.animated_image import Preview
from ..request.params import Params
from ..request.plan import Plan
from .finished_frames import FinishedFrames

NOTES = "AnimateDiff detail"
"""The parameter of the answer that says what was found."""
SIDES = {"SD 1.5": 512, "SDXL": 1024}
"""The side of the square that checkpoints of a kind are made for, in pixels."""


def detail(*, p: Any, plan: Plan, processed: Any, finished: FinishedFrames) -> list[str]:
    """Details every finished video. What cannot be detailed stays as it is. Returns warnings."""
    results: list[Detailed] = []

    def change(frames: list[Image.Image], row: int) -> list[Image.Image]:
        results.append(_of_video(p, plan, processed, frames, row))
        return results[-1].frames

    finished.replace(change)
    if notes := [note for result in results for note in result.notes]:
        processed.comments += "".join(f"{note}\n" for note in notes)
        processed.extra_generation_params = {**processed.extra_generation_params, NOTES: notes}
    return [warning for result in results for warning in result.warnings]


def _of_video(p: Any, plan: Plan, processed: Any, frames: list[Image.Image], row: int) -> Detailed:
    nested = Nested(p, plan, processed, row)
    side = plan.params.detail_size or plan.family.advice.side or SIDES[plan.family.base]
    around = Around(
        lambda: _detector(plan.params), tell=_tell, show=lambda pictures: _show(pictures, plan), is_interrupted=is_interrupted
    )
    try:
        return detailed(frames, plan.params, side, nested.make, around, whole=nested.travels)
    except AnimateDiffError as error:
        text = f"AnimateDiff: The subjects could not be detailed, so the frames are as they were generated: {error}"
    except Exception as error:
        text = failure(error, "AnimateDiff could not detail the subjects, so the frames are as they were generated")
    return Detailed(frames, warnings=[text])


def _detector(params: Params) -> Detector:
    """Returns what finds subjects."""
    if not params.detector_file:
        return detector(params.detail, params.detail_confidence)
    return yolo_detector(detector_files.find(params.detector_file), params.detail_confidence, devices.device)


def _show(pictures: list[Image.Image], plan: Plan) -> None:
    """Shows pictures of the clip as its live preview."""
    if shared.opts.live_previews_enable:
        seconds = plan.frames / plan.params.fps / len(pictures)
        shared.state.assign_current_image(Preview.of(pictures, round(1000 * min(seconds, 1))))


def _tell(text: str) -> None:
    shared.state.textinfo = text
