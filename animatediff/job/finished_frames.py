"""The finished frames of one job: they come one by one, and become files and the WebUI's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from modules import shared
from PIL import Image

from motion_module.evaluation import changes_of

from .. import settings
from ..controlnet.control import Control
from ..errors import failure
from ..output.results import WARNINGS, Results, Video
from ..request.params import Params
from ..request.plan import Plan


def writes_frames(params: Params) -> bool:
    """Whether frames go into a folder of their own, rather than where the WebUI saves images, before they are detailed."""
    return params.details or shared.opts.data.get("animatediff_save_to_custom", True)


class FinishedFrames:
    """The frames of all videos of a job, by their iteration. `control`: knows the detected maps."""

    def __init__(self, p: Any, plan: Plan, control: Control) -> None:
        self._p = p
        self._plan = plan
        self._params = plan.params
        self._control = control
        self._holders: dict[int, list[Any]] = {}
        self._replaced: list[Image.Image] = []

    def add(self, holder: Any) -> None:
        """Adds the next frame of the running iteration. `holder`: its attribute `image` is the frame, once all is over."""
        self._holders.setdefault(self._p.iteration, []).append(holder)

    def replace(self, change: Callable[[list[Image.Image], int], list[Image.Image]]) -> None:
        """Replaces the frames of each video by what `change` returns for them. It also gets the row of the first one."""
        for iteration, finished in sorted(self._holders.items()):
            frames = [holder.image for holder in finished]
            for holder, changed in zip(finished, change(frames, iteration * self._params.video_length)):
                holder.image = changed
            self._replaced += frames

    def deliver(self, processed: Any, warnings: list[str]) -> list[str]:
        """Writes files and the answer. If a video cannot be made, its frames are shown.

        `warnings`: go into the answer; what fails adds one. Returns the files for the page's player.
        """
        results = self._results(warnings)
        try:
            videos = self._videos(processed)
            results.deliver(processed, videos, self._other_images(processed), self._maps(videos))
        except Exception as error:
            warnings.append(failure(error, "AnimateDiff could not finish its video, so the frames are shown"))
            processed.extra_generation_params = {**processed.extra_generation_params, WARNINGS: warnings}
        return results.player_files

    def _results(self, warnings: list[str]) -> Results:
        source = self._plan.inputs.source
        return Results(
            p=self._p,
            params=self._params,
            quality=settings.quality(),
            outpath=self._p.outpath_samples if self._p.save_samples() else None,
            writes_frames=writes_frames(self._params),
            is_api=self._p.is_api,
            warnings=warnings,
            sound=source.sound_for(self._params) if source else None,
            rife=self._plan.inputs.rife,
        )

    def _videos(self, processed: Any) -> list[Video]:
        """One video for each iteration; the WebUI's infotexts and seeds run through the frames of all."""
        videos = []
        infotexts = iter(processed.infotexts)
        for iteration, finished in sorted(self._holders.items()):
            frames = [holder.image for holder in finished]
            row = iteration * self._params.video_length
            video = Video(frames, [next(infotexts) for _ in frames], row, processed.all_seeds[row])
            windows = self._plan.windows
            video.seams = self._seams(frames) if windows.needed or windows.wraps else None
            videos.append(video)
        return videos

    def _maps(self, videos: list[Video]) -> list[Video]:
        """One video of detected maps for each ControlNet unit."""
        if not videos:
            return []
        first = videos[0]
        return [
            Video(maps, first.infotexts[:1] * len(maps), first.first_row, first.seed, maps_of=f"controlnet{unit.number}")
            for unit, maps in self._control.maps()
        ]

    def _seams(self, frames: list[Image.Image]) -> dict[str, Any]:
        steps, closing = changes_of([np.asarray(frame.convert("RGB")) for frame in frames])
        boundaries = self._plan.windows.boundaries()
        return {"steps": [round(step, 2) for step in steps], "closing": round(closing, 2), "borders": boundaries}

    def _other_images(self, processed: Any) -> list[Image.Image]:
        """Images of the answer that are no frames, such as masks."""
        shown = [holder.image for finished in self._holders.values() for holder in finished]
        frames = {id(image) for image in (*shown, *self._replaced)}
        return [image for image in processed.images if id(image) not in frames]
