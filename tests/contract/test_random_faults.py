"""Exceptions, interrupts and skips at random layers and steps: the next plain picture is as if nothing had happened."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.animation import FRAMES, animate, info_of
from support.pictures import encode, gradient, pictures_of
from support.random_requests import HIRES
from support.server import Server

LAYERS = (
    *(f"{side}_blocks.{number}.0" for side in ("input", "output") for number in range(12)),
    *("middle_block.0", "middle_block.1", "middle_block.2", "out.2", "time_embed.0", "input_blocks.1.1", "output_blocks.3.1"),
)
WINDOWED = {"video_length": 8, "batch_size": 4}
CLIPS: tuple[dict[str, Any], ...] = (
    animate("v1"),
    animate("v3"),
    animate("v3", **WINDOWED),
    animate("v2", context_mode="motion attention", **WINDOWED),
    animate("v3", freeinit_enable=True, freeinit_iters=2),
    animate("v1", first_frame_attention=0.5),
    {**animate("v3"), **HIRES},
    {**animate("v3"), "n_iter": 2},
    {**animate("v3"), "init_images": [encode(gradient())], "denoising_strength": 0.7},
)
EVENTS = st.tuples(st.sampled_from(("exception", "exception", "interrupt", "skip")), st.sampled_from(LAYERS), st.integers(1, 8))


def test_random_faults(host: Server, seed: int, random_faults: int) -> None:
    """`make fuzz` plants 1,000."""
    plain, clean, fired = _plain(host), _state(host), 0

    @hypothesis.seed(seed)
    @settings(max_examples=random_faults, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(EVENTS, st.sampled_from(CLIPS))
    def run(event: tuple[str, str, int], clip: dict[str, Any]) -> None:
        nonlocal fired
        kind, layer, call = event
        if kind == "exception":
            host.post("/probe/v1/fault", {"step": call, "layer": layer}).raise_for_status()
        else:
            host.post("/probe/v1/interrupt-at", {"step": call, "how": kind}).raise_for_status()
        answer = host.img2img(**clip) if "init_images" in clip else host.txt2img(**clip)
        host.post("/probe/v1/fault", {}).raise_for_status()
        host.post("/probe/v1/interrupt-at", {}).raise_for_status()
        if answer.status_code == 500:
            assert kind == "exception" and "probe fault" in answer.text
            fired += 1
        else:
            _require_frames(clip, answer, kind)
        assert _state(host) == clean
        assert np.array_equal(_plain(host), plain)

    run()
    print(f"{random_faults} events with seed {seed}; {fired} exceptions")
    assert fired >= random_faults / 10


def _require_frames(clip: dict[str, Any], answer: Any, kind: str) -> None:
    """An interrupted request may lack videos that it had not begun, but every video has all of its frames."""
    args = clip["alwayson_scripts"]["AnimateDiff"]["args"][0]
    frames, count = args["video_length"] or FRAMES, len(pictures_of(answer))
    videos = clip.get("n_iter", 1)
    assert f"video_length: {frames}" in info_of(answer)["infotexts"][0]
    assert count == frames * videos or (kind == "interrupt" and count % frames == 0 and 0 < count < frames * videos)


def _plain(host: Server) -> np.ndarray:
    return np.stack(pictures_of(host.txt2img(steps=2)))


def _state(host: Server) -> Any:
    return host.get("/probe/v1/state").json()
