"""Timelines of keyframes below the prompts, in Chromium."""

import pytest
from playwright.sync_api import expect

from support.browser import MINUTES, NO_PLAYER, choose, expect_prompt, set_number


def start_typing(page, prompt, tab="txt2img", name="prompt"):
    """Types a prompt. Returns the timeline below it."""
    field = page.locator(f"#{tab}_{name} textarea").first
    field.fill("")
    field.press_sequentially(prompt, delay=10, timeout=2 * MINUTES)  # Gradio 4 draws the whole page for each key
    return page.locator(f"#{tab}_{name}-ad-timeline").first


@pytest.mark.webui_only(NO_PLAYER)
@pytest.mark.not_on(("Neo",), "it tells nobody what of a prompt is a comment, until it generates")
def test_keyframes_are_shown_while_they_are_typed(page):
    page.wait_for_timeout(1000)  # the page's first requests are over
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    prompt = "# a comment\na cat\n0: asleep\n3-4: awake <lora:lora_tiny:1>\nsharp"
    timeline = start_typing(page, prompt)
    segments = timeline.locator(".ad-timeline > span")
    expect(segments).to_have_text(["0: asleep", "3–4: awake"])
    expect(timeline.locator(".ad-timeline-shared")).to_have_text("In all frames: a cat … sharp")
    assert len(asked) < len(prompt) / 2, "every key sends a request"
    assert segments.nth(1).get_attribute("title") == "a cat, awake, sharp"
    first, second = (segments.nth(index).bounding_box() for index in (0, 1))
    assert first["width"] == pytest.approx(second["width"], abs=1)
    box = page.locator("#txt2img_prompt").bounding_box()
    assert 0 <= first["y"] - (box["y"] + box["height"]) < 20 and first["width"] > 0.4 * box["width"]


@pytest.mark.webui_only(NO_PLAYER)
def test_a_timeline_follows_the_panel(page):
    timeline = start_typing(page, "0: asleep\n3: awake")
    segments = timeline.locator(".ad-timeline > span")
    expect(segments).to_have_text(["0: asleep", "3: awake"])
    choose(page, "txt2img-ad-closed-loop", "R+P")
    expect(segments).to_have_text(["0: asleep", "3: awake", "↻"])
    set_number(page, "txt2img-ad-video-length", 3)
    expect(timeline.locator("mark")).to_have_text("3: awake")
    expect(timeline).to_contain_text("whose frames are numbered 0 to 2. Move it, or raise Number of frames (video_length).")
    set_number(page, "txt2img-ad-video-length", 0)
    expect(segments).to_have_count(3)
    page.locator("#txt2img-ad-enable input[type=checkbox]").first.uncheck()
    expect(timeline).to_be_hidden()


@pytest.mark.webui_only(NO_PLAYER)
def test_every_prompt_has_its_timeline(page):
    expect(start_typing(page, "0: bad\n3: worse", name="neg_prompt").locator("span")).to_have_text(["0: bad", "3: worse"])
    expect(page.locator("#txt2img_prompt-ad-timeline").first).to_be_hidden()
    page.locator("#tabs > .tab-nav button", has_text="img2img").click()
    timeline = start_typing(page, "0: asleep\n0: awake", "img2img")
    page.locator("#img2img-ad-enable input[type=checkbox]").first.check()
    expect(timeline.locator("mark")).to_have_text(["0: asleep", "0: awake"])
    expect(timeline).to_contain_text("Two keyframes are at frame 0.")


@pytest.mark.webui_only(NO_PLAYER)
def test_what_looks_like_a_keyframe_is_said_with_and_without_keyframes(page):
    timeline = start_typing(page, "0: asleep, 3: awake")
    expect(timeline.locator(".ad-timeline > span")).to_have_text(["0: asleep, 3: awake"])
    expect(timeline.locator(".ad-timeline-note")).to_contain_text("has “3:” in its middle")
    start_typing(page, "(0: asleep)")
    expect(timeline.locator(".ad-timeline-note")).to_contain_text("The line “(0: asleep)” looks like a keyframe")
    expect(timeline.locator(".ad-timeline")).to_have_count(0)


def paste(page, facts=""):
    """Pastes an infotext with hires fix, which shows the prompts of the hires pass, even if the settings hide them."""
    page.locator("#txt2img_prompt textarea").first.fill(
        f'a cat\nSteps: 3, {facts}Hires upscale: 2, Denoising strength: 0.7, AnimateDiff: "enable: True, video_length: 6"'
    )
    page.locator("#txt2img_tools #paste").click()


@pytest.mark.webui_only(NO_PLAYER)
@pytest.mark.not_on(("Forge", "Neo"), "it pastes no prompts of the hires pass")
def test_a_pasted_prompt_of_the_hires_pass_has_a_timeline(page):
    paste(page, 'Hires prompt: "a cat\\n0: asleep\\n3: awake", ')
    segments = page.locator("#hires_prompt-ad-timeline").first.locator(".ad-timeline > span")
    expect(segments).to_have_text(["0: asleep", "3: awake"], timeout=MINUTES)


@pytest.mark.webui_only(NO_PLAYER)
def test_prompts_of_the_hires_pass_have_timelines_below_them(page, host):
    paste(page, 'Hires prompt: "a dog", ')
    expect(page.locator("#hires_prompt").first).to_be_visible(timeout=MINUTES)
    expect_prompt(page, host, "a cat")  # all boxes are filled by then
    timeline, negative = (page.locator(f"#{name}-ad-timeline").first for name in ("hires_prompt", "hires_neg_prompt"))
    start_typing(page, "a cat\n0: asleep\n3: awake", "hires", "prompt")
    expect(timeline.locator(".ad-timeline > span")).to_have_text(["0: asleep", "3: awake"])
    start_typing(page, "0: worse\n6: bad", "hires", "neg_prompt")
    expect(timeline.locator(".ad-timeline-shared")).to_have_text("In all frames: a cat …")
    expect(negative.locator("mark")).to_have_text("6: bad")
    for below, name in ((timeline, "hires_prompt"), (negative, "hires_neg_prompt")):
        box, strip = page.locator(f"#{name}").first.bounding_box(), below.bounding_box()
        assert 0 <= strip["y"] - (box["y"] + box["height"]) < 20 and strip["width"] == pytest.approx(box["width"], abs=1)
    expect(page.locator("#txt2img_prompt-ad-timeline").first).to_be_hidden()
