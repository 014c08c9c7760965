"""Random requests: each is refused with a sentence, or answered with the right number of frames, and none leaves a trace."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, given, settings

from animatediff.video.formats import VIDEO_FORMATS, is_picture
from support.animation import info_of
from support.pictures import decode, pictures_of
from support.random_requests import RandomRequest, requests
from support.server import Server

TRAINED_FRAMES = 16
PLAIN_AFTER = 50
"""After so many requests the plain picture is made again."""
MOST_GROWTH = 150
"""Megabytes by which a host's memory may grow after the first tenth of the requests, whose sizes its allocators keep."""
EXCEPTION = re.compile(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|object is not|<class ")


def test_random_requests(host: Server, seed: int, random_requests: int, record_property: Any) -> None:
    """`make fuzz` makes 10,000; the figures are in the report of the run."""
    plain, counts, memory = np.stack(pictures_of(host.txt2img())), Counter[str](), []

    @hypothesis.seed(seed)
    @settings(max_examples=random_requests, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests())
    def run(request: RandomRequest) -> None:
        counts[_outcome(host, request)] += 1
        if counts.total() % max(PLAIN_AFTER, random_requests // 10) == 0:
            memory.append(_megabytes(host))
        if counts.total() % PLAIN_AFTER == 0:
            assert np.array_equal(np.stack(pictures_of(host.txt2img())), plain)

    run()
    print(f"{counts.total()} requests with seed {seed}: {dict(counts)}; megabytes: {memory}")
    assert counts["made"] > counts.total() / 5 and counts["refused"] > counts.total() / 10
    assert memory[-1] - memory[0] < MOST_GROWTH


def _outcome(host: Server, request: RandomRequest) -> str:
    asked = {"width": 64, "height": 64, **host.txt2img_fields, **request.json}
    if (upscaler := asked.get("hr_upscaler")) in host.upscalers:
        asked["hr_upscaler"] = host.upscalers[upscaler]
    body = json.dumps(asked)  # as Python writes it: requests refuses NaN and Infinity
    answer = host.post(f"/sdapi/v1/{request.route}", data=body, headers={"Content-Type": "application/json"})
    if answer.status_code == 422:
        text = answer.json()["detail"]
        assert isinstance(text, str) and len(text) > 20 and not EXCEPTION.search(text), text
        return "refused"
    if not request.is_sure("enable") and len(request.body.get("init_images", [""])) != 1:
        return "other"  # without AnimateDiff, the host itself makes one picture from one
    if answer.status_code == 500 and not request.is_sure("enable") and len(request.mistyped) > 1:
        return "other"  # nor can its answer repeat every value
    assert answer.status_code == 200, f"{request}: HTTP {answer.status_code}: {answer.text[:1000]}"
    if not request.is_sure("enable"):
        return "other"
    _require_frames(request, answer)
    return "made"


def _require_frames(request: RandomRequest, answer: Any) -> None:
    infotext, images = info_of(answer)["infotexts"][0], answer.json()["images"]
    frames = int(re.search(r"video_length: (\d+)", infotext)[1])
    if request.is_sure("video_length", "batch_size", "video_path", "video_source", "last_frame"):
        assert frames == _frames_of(request)
    if request.is_sure("format", "video_delivery"):
        args = request.arguments
        as_data = args.get("video_delivery", "data") == "data"
        videos = [name for name in args["format"] if name in VIDEO_FORMATS and (as_data or is_picture(name))]
        assert len(images) == request.body["n_iter"] * (frames + len(videos))
        side = 96 if request.body.get("enable_hr") else 64
        assert decode(images[-1])[0].shape == (side, side, 3)


def _frames_of(request: RandomRequest) -> int:
    args, images = request.arguments, request.body.get("init_images", ())
    return args["video_length"] or (len(images) if len(images) > 1 else args.get("batch_size") or TRAINED_FRAMES)


def _megabytes(host: Server) -> int:
    status = Path(f"/proc/{host.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) // 1024
