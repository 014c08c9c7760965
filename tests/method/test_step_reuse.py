"""Light steps: what is computed, what is known from the last full step, and when every call is a full one."""

from contextlib import ExitStack, contextmanager, nullcontext
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from motion_module.attach import attached
from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows
from motion_module.deep_features import DeepFeatures
from motion_module.layer_offload import in_chunks
from motion_module.light_steps import LightSteps
from motion_module.motion_layers import Motion
from motion_module.row_layout import RowLayout, layout_of_call
from motion_module.step_reuse import NEGATIVE, StepReuse
from motion_module.unet_cache import UNetCache
from motion_module.windowed_unet import WindowedUNet, arguments_of_rows
from support.ldm_unet import make_unet
from support.published_layouts import WIDTHS, module_weights

FRAMES, STEPS = 4, 6
BOTH = (0, NEGATIVE)


@pytest.fixture(scope="module")
def unet():
    return make_unet()


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("module") / "v3.safetensors"
    save_file(module_weights("v3", WIDTHS), path)
    return load(path)


def given(step, rows, frames=FRAMES, seed=None):
    """Returns the arguments of a UNet call in a step: its clips have the same noise, and each row a condition of its own."""
    draw = torch.Generator().manual_seed(step if seed is None else seed)
    x = torch.randn(frames, 4, 8, 8, generator=draw).repeat(rows // frames, 1, 1, 1)
    return x, torch.full((rows,), 900 - 100 * step), torch.randn(rows, 7, 24, generator=draw)


class Sampler:
    """A sampler's step, and the light steps of a clip that it samples with a UNet."""

    def __init__(self, unet, module, *, every=2, deep=True, negative=True, windows=None, parts=1, chunks=None):
        self.unet, self.step, self.frames = unet, 0, windows.frames if windows else FRAMES
        self.made_at = []
        """The steps of the calls that reach the UNet, and of each window's if there are several."""
        self._description, self._module = module
        self._windows, self._parts, self._chunks = windows, parts, chunks
        self._light = LightSteps(every)
        self._deep = deep
        self._negative = negative
        self.layers = []
        """The blocks of all motion layers that acted, with the step."""

    @contextmanager
    def open(self, cache=None, conditions=None):
        whole = lambda rows: layout_of_call(rows, self.frames, self._parts)  # noqa: E731
        layout_of = whole
        with ExitStack() as stack:
            if self._windows:
                windowed = WindowedUNet(self._windows, lambda: self._light.full_before(self.step, STEPS), whole)
                stack.enter_context(windowed.applied_to(self.unet))
                layout_of = windowed.layout_of
            if self._chunks:
                stack.enter_context(in_chunks(self.unet, self._chunks))
            deep = DeepFeatures(layout_of) if self._deep else None
            self.reuse = StepReuse(
                self._light,
                deep,
                negative=self._negative,
                step=lambda: self.step,
                steps=lambda: STEPS,
                at_step=self._at,
                layout_of=whole,
                conditions_of=conditions or (lambda rows, named, had: [*range(self._parts), NEGATIVE]),
            )
            stack.enter_context(self.reuse.applied_to(self.unet, cache.applied_to(self.unet) if cache else None))
            motion = Motion(self._module, rests=deep.rests if deep else lambda block: False)
            acting, motion.animate = motion.animate, lambda *args: self._animate(acting, deep, *args)
            stack.enter_context(attached(self.unet, motion, self._description.family, layout_of))
            hook = self.unet.time_embed.register_forward_hook(lambda *_: self.made_at.append(self.step))
            stack.callback(hook.remove)
            stack.enter_context(deep.applied_to(self.unet) if deep else nullcontext())
            yield self

    def _animate(self, acting, deep, block, x, layout):
        if not (deep and deep.rests(block)):
            self.layers.append((self.step, block))
        return acting(block, x, layout)

    @contextmanager
    def _at(self, step):
        now, self.step = self.step, step
        yield
        self.step = now

    def call(self, step, rows=None, seed=None):
        """Calls the UNet in a step. `seed`: of its input, if not the step."""
        self.step = step
        return self.unet(*given(step, rows or (self._parts + 1) * self.frames, self.frames, seed))


@pytest.fixture
def sampler(unet, module):
    return lambda **how: Sampler(unet, module, **how)


@contextmanager
def recording_features(unet):
    """Records what enters the first block that computes in a light step, and what the last one that does not returns."""
    seen = []
    hook = unet.output_blocks[10].register_forward_pre_hook(lambda _block, inputs: seen.append(inputs[0][:, :32].clone()))
    yield seen
    hook.remove()


def by_hand(unet, x, times, context, features):
    """LDM's UNet with the output of `output_blocks[9]` given: only its two first and its two last blocks compute."""
    from ldm.modules.diffusionmodules.util import timestep_embedding

    emb = unet.time_embed(timestep_embedding(times, unet.model_channels, repeat_only=False))
    first = unet.input_blocks[0](x, emb, context)
    second = unet.input_blocks[1](first, emb, context)
    h = unet.output_blocks[10](torch.cat([features, second], dim=1), emb, context)
    return unet.out(unet.output_blocks[11](torch.cat([h, first], dim=1), emb, context))


@pytest.mark.parametrize(
    ("every", "steps", "light"),
    [(2, 6, [1, 3]), (2, 7, [1, 3, 5]), (3, 8, [1, 2, 4, 5]), (1, 4, []), (5, 2, []), (5, 4, [1, 2])],
)
def test_which_steps_are_light(every, steps, light):
    assert [step for step in range(steps + 3) if LightSteps(every).is_light(step, steps)] == light


def test_a_pass_of_few_steps_has_no_light_ones():
    """So its steps have the windows of an exact clip too."""
    light = LightSteps(3, least=10)
    assert light.count(9) == 0 and light.count(10) == 6
    assert [light.full_before(step, 9) for step in range(9)] == list(range(9))


def test_each_full_step_has_windows_of_its_own():
    light = LightSteps(3)
    assert [light.full_before(step, 9) for step in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert [light.last_full(step, 9) for step in range(9)] == [0, 0, 0, 3, 3, 3, 6, 6, 8]
    assert [LightSteps(1).full_before(step, 5) for step in range(6)] == list(range(6))


def test_a_light_call_computes_the_outer_blocks_of_the_prompt(sampler, unet):
    made = sampler()
    with made.open(), recording_features(unet) as features:
        full = made.call(0)
        light = made.call(1)
        layers = list(made.layers)
        x, times, context = given(1, 2 * FRAMES)
        prompt = by_hand(unet, x[:FRAMES], times[:FRAMES], context[:FRAMES], features[0][:FRAMES])
    torch.testing.assert_close(light[:FRAMES], prompt, atol=1e-6, rtol=0)
    torch.testing.assert_close(light[FRAMES:], prompt + full[FRAMES:] - full[:FRAMES], atol=1e-5, rtol=0)
    assert {block for step, block in layers if step == 0} >= {"down_0_0", "down_3_1", "up_0_0", "up_3_2"}
    assert {block for step, block in layers if step == 1} == {"down_0_0", "up_3_1", "up_3_2"}


@pytest.mark.parametrize(("every", "step"), [(2, 3), (3, 4)])
def test_a_light_call_goes_on_from_two_full_ones(sampler, unet, every, step):
    """Features go on along a line, the negative prompt's distance from the prompt a part of that way."""
    made = sampler(every=every)
    with made.open(), recording_features(unet) as features:
        full = [made.call(number).unflatten(0, (2, FRAMES)) for number in (0, every)]
        light = made.call(step)
        before, last = (found[:FRAMES] for found in features[:2])
        further = (step - every) / every
        x, times, context = (each[:FRAMES] for each in given(step, 2 * FRAMES))
        prompt = by_hand(unet, x, times, context, last + further * (last - before))
    torch.testing.assert_close(light[:FRAMES], prompt, atol=1e-5, rtol=0)
    first, second = (negative - positive for positive, negative in full)
    distance = second + step / STEPS * further * (second - first)
    torch.testing.assert_close(light[FRAMES:], prompt + distance, atol=1e-5, rtol=0)


def test_full_steps_are_exact(sampler, unet):
    exact, made = sampler(every=1), sampler()
    with exact.open():
        expected = [exact.call(step) for step in range(STEPS)]
    with made.open():
        found = [made.call(step) for step in range(STEPS)]
    assert [torch.equal(*both) for both in zip(found, expected)] == [True, False, True, False, True, True]


def test_deep_blocks_only(sampler, unet):
    made = sampler(negative=False)
    with made.open(), recording_features(unet) as features:
        made.call(0)
        light = made.call(1)
        expected = by_hand(unet, *given(1, 2 * FRAMES), features[0])
    torch.testing.assert_close(light, expected, atol=1e-6, rtol=0)


def test_negative_prompt_only(sampler):
    exact, made = sampler(every=1), sampler(deep=False)
    with exact.open():
        prompts = [exact.call(step)[:FRAMES] for step in range(3)]
    with made.open():
        full, light = made.call(0), made.call(1)
    torch.testing.assert_close(light[:FRAMES], prompts[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(light[FRAMES:], prompts[1] + full[FRAMES:] - prompts[0], atol=1e-5, rtol=0)


def test_motion_is_in_the_features(sampler, unet):
    """They are those after the motion layer of the last deep block, which does not act again."""
    made = sampler()
    with made.open(), recording_features(unet) as features:
        made.call(0)
        made.call(1)
    assert torch.equal(features[1], features[0][:FRAMES])


@pytest.mark.parametrize("closed_loop", ["none", "many"])
def test_windows_of_a_light_step_are_those_of_the_full_one(sampler, unet, closed_loop):
    windows = ContextWindows(9, 4, 1, closed_loop=closed_loop)
    made, count = sampler(windows=windows, every=3), len(windows.at(1).frames)
    with made.open(), recording_features(unet) as features:
        made.call(0)
        before = dict(zip(map(tuple, windows.at(0).frames.tolist()), features))
        features.clear()
        made.call(3)
        light = made.call(4)
    x, times, context = given(4, 18, 9)
    noise = []
    layout = lambda rows: RowLayout(4, rows)  # noqa: E731
    description, module = made._description, made._module
    with attached(unet, Motion(module), description.family, layout):
        for window, last in zip(windows.at(1).frames, features[:count]):
            expected = last + (last - before.get(tuple(window.tolist()), last)) / 3
            noise.append(by_hand(unet, x[window], times[window], context[window], expected[:4]))
    expected = windows.at(1).blended(torch.stack(noise)[None])[0]
    torch.testing.assert_close(light[:9], expected, atol=1e-5, rtol=0)


def test_prompts_joined_by_and(sampler, unet):
    """Their rows are frame by frame, all parts of each. The negative prompt is as far from their mean as it was."""
    made = sampler(parts=2)
    order = layout_of_call(3 * FRAMES, FRAMES, 2).order
    with made.open(), recording_features(unet) as features:
        full = made.call(0)[order].unflatten(0, (3, FRAMES))
        light = made.call(1)[order].unflatten(0, (3, FRAMES))
        x, times, context = (each[: 2 * FRAMES] for each in given(1, 3 * FRAMES))
        expected = by_hand(unet, x, times, context, features[0][: 2 * FRAMES])[order[: 2 * FRAMES]].unflatten(0, (2, FRAMES))
    torch.testing.assert_close(light[:2], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(light[2], expected.mean(dim=0) + full[2] - full[:2].mean(dim=0), atol=1e-5, rtol=0)


def in_turn(order):
    """The conditions of a guidance that calls the UNet with one of them at a time."""
    return lambda rows, named, had: [order[len(had)]]


def test_conditions_in_calls_of_their_own(sampler, unet):
    """The negative prompt's call is left out if it comes after that of the prompt."""
    made = sampler()
    with made.open(conditions=in_turn(BOTH)), recording_features(unet) as features:
        full = made.call(0, FRAMES), made.call(0, FRAMES, seed=9)
        light = made.call(1, FRAMES), made.call(1, FRAMES, seed=9)
        assert made.made_at == [0, 0, 1]
        expected = by_hand(unet, *given(1, FRAMES), features[0])
    torch.testing.assert_close(light[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(light[1], expected + full[1] - full[0], atol=1e-5, rtol=0)


def test_a_negative_prompt_that_comes_first_alone_is_computed(sampler):
    exact, made = sampler(every=1), sampler()
    with exact.open(conditions=in_turn((NEGATIVE, 0))):
        expected = [exact.call(step, FRAMES, seed=step + 5 * place) for step in range(2) for place in range(2)]
    with made.open(conditions=in_turn((NEGATIVE, 0))):
        found = [made.call(step, FRAMES, seed=step + 5 * place) for step in range(2) for place in range(2)]
    assert [torch.equal(*both) for both in zip(found, expected)] == [True, True, True, False]


@pytest.mark.parametrize(("every", "light"), [(3, 2), (2, 3)])
def test_a_full_call_in_a_light_step_keeps_nothing(sampler, unet, every, light):
    """Otherwise it would push out the full steps that another condition still uses."""
    made, seen = sampler(every=every), {}
    with made.open(conditions=in_turn((NEGATIVE, 0))), recording_features(unet) as features:
        for step in range(light + 1):
            made.call(step, FRAMES, seed=9)
            made.call(step, FRAMES)
            seen[step] = features[-1]
    expected = seen[0] if every == 3 else torch.lerp(seen[0], seen[2], 1.5)
    torch.testing.assert_close(seen[light], expected, atol=1e-6, rtol=0)


def test_a_negative_prompt_comes_first_alone_only_in_a_light_step(sampler, unet):
    """Forge chooses for each call how many conditions it has, by the memory that is free. The prompt is light all the same."""
    made, marks = sampler(), iter([[NEGATIVE, 0], [NEGATIVE], [0]])
    with made.open(conditions=lambda *_: next(marks)), recording_features(unet) as features:
        made.call(0)
        negative = made.call(1, FRAMES, seed=9)
        prompt = made.call(1, FRAMES)
        expected = by_hand(unet, *given(1, FRAMES), features[0][FRAMES:])
    exact = sampler(every=1)
    with exact.open(conditions=in_turn((NEGATIVE,))):
        assert torch.equal(negative, exact.call(1, FRAMES, seed=9))
    torch.testing.assert_close(prompt, expected, atol=1e-6, rtol=0)


def test_the_negative_prompt_may_come_first_in_a_call(sampler):
    """So it is in Forge."""
    usual, other, swapped = sampler(), sampler(), torch.arange(2 * FRAMES).roll(FRAMES)
    with usual.open():
        expected = [usual.call(0), usual.call(1)]
    with other.open(conditions=lambda *_: [NEGATIVE, 0]):
        found = []
        for step in (0, 1):
            other.step = step
            found.append(other.unet(*arguments_of_rows(given(step, 2 * FRAMES), swapped, 2 * FRAMES, FRAMES))[swapped])
    for one, another in zip(found, expected):
        torch.testing.assert_close(one, another, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "conditions",
    [lambda *_: None, lambda rows, named, had: [0, 0], lambda rows, named, had: [0, NEGATIVE] if not had else [0]],
    ids=["not known", "one twice", "a second call"],
)
def test_calls_that_are_not_the_guidances_are_exact(sampler, conditions):
    exact, made = sampler(every=1), sampler()
    with exact.open(), made.open(conditions=conditions):
        pass
    with exact.open():
        expected = exact.call(0), exact.call(1)
    with made.open(conditions=conditions):
        made.call(0)
        if conditions(8, {}, [0]) == [0]:
            made.call(1)
        assert torch.equal(made.call(1), expected[1])


def test_a_negative_prompt_that_the_full_step_left_out_is_computed(sampler):
    """The WebUI leaves it out in some steps (“Negative Guidance minimum sigma”)."""
    exact, made = sampler(every=1), sampler()
    of_rows = lambda rows, named, had: list(BOTH)[: rows // FRAMES]  # noqa: E731
    with exact.open():
        expected = exact.call(3)
    with made.open(conditions=of_rows):
        made.call(0)
        made.call(1)
        made.call(2, FRAMES)
        assert torch.equal(made.call(3), expected)


def test_a_condition_that_came_late_is_computed_until_the_next_full_step(sampler):
    exact, made = sampler(every=1), sampler(every=3)
    of_rows = lambda rows, named, had: list(BOTH)[: rows // FRAMES]  # noqa: E731
    with exact.open():
        expected = [exact.call(step) for step in (1, 2)]
    with made.open(conditions=of_rows):
        made.call(0, FRAMES)
        assert all(torch.equal(made.call(step), of_step) for step, of_step in zip((1, 2), expected))


def test_another_run_begins_anew(sampler):
    exact, made = sampler(every=1), sampler()
    with exact.open():
        expected = exact.call(1)
    with made.open():
        made.call(0)
        made.reuse.begin()
        assert torch.equal(made.call(1), expected)


def test_a_run_that_is_not_announced_begins_anew(sampler):
    alone, after = sampler(), sampler()
    with alone.open():
        expected = [alone.call(step) for step in range(4)]
    with after.open():
        for step in range(STEPS):
            after.call(step, seed=20 + step)
        assert all(torch.equal(after.call(step), of_step) for step, of_step in enumerate(expected))


@pytest.mark.parametrize("rows", [3, 8])
def test_layers_that_work_on_some_rows_at_a_time(sampler, rows):
    windows = {"windows": None}
    plain, chunked = sampler(**windows), sampler(**windows, chunks=rows)
    with plain.open():
        expected = [plain.call(step) for step in range(3)]
    with chunked.open():
        found = [chunked.call(step) for step in range(3)]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), atol=2e-5, rtol=0)


def test_afterwards_the_unet_is_as_before(sampler, unet):
    before = {name: dict(vars(part)) for name, part in unet.named_modules()}
    made = sampler()
    with made.open():
        made.call(0)
        made.call(1)
    assert {name: {**vars(part)} for name, part in unet.named_modules()} == before


class CutOff(BaseException):
    """Simulates a kill, which no `except Exception` catches."""


def sampled(made, cache=None, most=1000):
    """Returns what a sampler makes of noise whose steps depend on each other. It is killed after `most` calls of the UNet."""
    x = torch.randn(made.frames, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    context = torch.randn(2 * made.frames, 7, 24, generator=torch.Generator().manual_seed(4))

    def kill(*_):
        if len(made.made_at) > most:
            raise CutOff

    with made.open(cache):
        hook = made.unet.time_embed.register_forward_hook(kill)
        try:
            for made.step, (time, after) in enumerate(pairwise(torch.linspace(900, 0, STEPS + 1))):
                found = made.unet(x.repeat(2, 1, 1, 1), time.expand(2 * made.frames), context)
                prompt, negative = found.chunk(2)
                x = x + (after - time) / 3000 * (negative + 2 * (prompt - negative))
        finally:
            hook.remove()
    return x


@pytest.mark.parametrize("windows", [None, ContextWindows(6, 4, 1)])
@pytest.mark.parametrize("every", [2, 3])
def test_a_resumed_clip_has_the_same_bits_wherever_it_was_cut_off(sampler, tmp_path, windows, every):
    """The first call after what is on the disk may be a light one: its features are made again from the full calls before.

    No other full call is made again, except for the first, which tells whether what is stored fits.
    """
    whole = sampler(windows=windows, every=every)
    expected = sampled(whole)
    for most in range(1, len(whole.made_at)):
        folder = tmp_path / str(most)
        folder.mkdir()
        with pytest.raises(CutOff):
            sampled(sampler(windows=windows, every=every), UNetCache(folder, lambda: ""), most)
        again, cache = sampler(windows=windows, every=every), UNetCache(folder, lambda: "")
        assert torch.equal(sampled(again, cache), expected)
        stored, light = range(whole.made_at[most]), LightSteps(every)
        missing = [light.expected(step, STEPS) for step in range(len(stored), STEPS) if light.is_light(step, STEPS)]
        needed = {missing[0].before, missing[0].last} if missing else set()
        assert {step for step in again.made_at if step in stored} <= {0} | needed
    assert cache.resumed_after is not None and len(again.made_at) < len(whole.made_at)
