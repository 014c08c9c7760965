"""The hints of ControlNet's units in memory, and what a UNet call gets of them."""

from types import SimpleNamespace

import pytest
import torch

from animatediff.controlnet import marks
from animatediff.controlnet.embeddings import AdaptedCalls, travelling
from animatediff.controlnet.hints import Hints
from animatediff.controlnet.unet_calls import UNetCalls, UnitHints
from animatediff.errors import AnimateDiffError
from animatediff.job import prompt_travel
from motion_module.prompt_travel import Keyframe, Travel
from motion_module.row_layout import RowLayout, layout_of_call

CPU = torch.device("cpu")


def picture(value):
    return torch.full((1, 3, 8, 8), value / 255)


def filled(frames, of):
    hints = Hints(frames, of)
    for frame in of:
        hints.add(picture(frame))
    return hints


def values(hints, frames):
    return (hints.rows(frames) * 255)[:, 0, 0, 0].tolist()


def test_pictures_are_kept_as_bytes_and_come_back_as_they_were():
    hints = Hints(2, range(2))
    first, second = torch.randint(0, 256, (1, 3, 8, 8)) / 255, torch.rand(1, 4, 8, 8)
    hints.add(first)
    assert hints.kept[0].dtype == torch.uint8 and torch.equal(hints.rows([0]), first)
    others = Hints(1, range(1))
    others.add(second)  # a map that is no picture
    assert torch.equal(others.rows([0]), second)


def test_rows_follow_frames_in_any_order():
    hints = filled(6, range(6))
    assert values(hints, [4, 5, 0, 4, 5, 0]) == pytest.approx([4, 5, 0, 4, 5, 0])
    assert values(hints, [1, 0]) == pytest.approx([1, 0])
    assert hints.acting([1, 2]) is None


def test_frames_between_keyframes_have_no_hint():
    hints = filled(6, [1, 4])
    assert values(hints, [0, 1, 4]) == pytest.approx([0, 1, 4])
    assert hints.acting([0, 1, 4]).flatten().tolist() == [0, 1, 1]
    assert hints.whole().shape == (6, 3, 8, 8)


def test_each_hint_is_encoded_once():
    encoded = []

    def encode(hint):
        encoded.append(round(float(hint[0, 0, 0, 0]) * 255))
        return hint[:, :, ::8, ::8]

    hints = filled(4, range(4))
    assert hints.latents([2, 3, 2], encode).shape == (3, 3, 1, 1)
    hints.latents([3, 0], encode)
    assert encoded == [2, 3, 0]


class Model(torch.nn.Module):
    """A control model that returns its hints."""

    def forward(self, *, hint, **_):
        return [hint]


def param(name="ControlNet", **facts):
    kind = SimpleNamespace(name=name)
    given = {"hint_cond": None, "hr_hint_cond": None, "used_hint_cond": None, "used_hint_cond_latent": None}
    given |= {"used_hint_inpaint_hijack": None, "control_model": Model(), "control_model_type": kind, "cfg_injection": False}
    return SimpleNamespace(**{**given, "preprocessor": {"name": "none"}, **facts})


def call(param, hints, layout, x, weights=None):
    """Calls a UNet whose ControlNet has one unit. Returns what its control model added."""
    added = []
    unet = SimpleNamespace()

    def controlled(x, timesteps, context, y=None):
        added.extend(param.control_model(x=x, hint=param.used_hint_cond, timesteps=timesteps, context=context, y=y))

    unet.forward = controlled
    network = SimpleNamespace(control_params=[param], model=unet)
    weighted = {0: weights} if weights else {}
    with UNetCalls(None, network, {0: hints} if hints else {}, lambda rows: layout, weights=weighted).applied_to(unet):
        unet.forward(x, None, context=None)
    assert unet.forward is controlled and isinstance(param.control_model, Model)
    return added


def test_a_call_of_a_window_has_the_hints_of_its_rows():
    window = RowLayout(2, 4, frame_numbers=torch.tensor([[3, 4], [3, 4]]))
    (added,) = call(param(), UnitHints(filled(6, range(6)), Hints(6, range(6))), window, torch.zeros(4, 4, 1, 1))
    assert (added[:, 0, 0, 0] * 255).tolist() == pytest.approx([3, 4, 3, 4])


def test_weights_of_frames_multiply_what_a_unit_adds():
    """Also of a unit with hints for some frames only, and of one with a single picture for all."""
    window = RowLayout(2, 4, frame_numbers=torch.tensor([[3, 4], [3, 4]]))
    weights, x = (1.0, 1.0, 1.0, 0.5, 2.0, 0.0), torch.zeros(4, 4, 1, 1)
    for of, expected in ((range(6), [1.5, 8, 1.5, 8]), ([4], [0, 8, 0, 8])):
        hints = Hints(6, of)
        for frame in of:
            hints.add(picture(frame))
        (added,) = call(param(), UnitHints(hints, Hints(6, of)), window, x, weights)
        assert (added[:, 0, 0, 0] * 255).tolist() == pytest.approx(expected)
    (added,) = call(param(used_hint_cond=picture(100)), None, window, x, weights)
    assert (added[:, 0, 0, 0] * 255).tolist() == pytest.approx([50, 200, 50, 200])


def test_units_of_other_kinds_keep_their_weight():
    unit = param("Controlllite", used_hint_cond=picture(100))
    (added,) = call(unit, None, RowLayout(2, 2), torch.zeros(2, 4, 1, 1), (0.5, 0.5))
    assert (added[:, 0, 0, 0] * 255).tolist() == pytest.approx([100])


def test_rows_of_and_come_frame_by_frame():
    layout = layout_of_call(9, 3, parts=2)
    (added,) = call(param(), UnitHints(filled(3, range(3)), Hints(3, range(3))), layout, torch.zeros(9, 4, 1, 1))
    assert (added[:, 0, 0, 0] * 255).tolist() == pytest.approx([0, 0, 1, 1, 2, 2, 0, 1, 2])


def test_a_hires_pass_has_its_own_hints():
    low, high = filled(2, range(2)), Hints(2, range(2))
    for frame in range(2):
        high.add(torch.full((1, 3, 16, 16), (100 + frame) / 255))
    unit, settings = UnitHints(low, high), param()
    (first,) = call(settings, unit, RowLayout(2, 2), torch.zeros(2, 4, 1, 1))
    assert first.shape[-1] == 8 and settings.used_hint_cond is settings.hint_cond
    (second,) = call(settings, unit, RowLayout(2, 2), torch.zeros(2, 4, 2, 2))
    assert second.shape[-1] == 16 and settings.used_hint_cond is settings.hr_hint_cond
    assert (second[:, 0, 0, 0] * 255).tolist() == pytest.approx([100, 101])


def test_what_controlnet_kept_for_another_number_of_rows_is_made_again():
    latent = torch.zeros(6, 4, 1, 1)
    unit = param(used_hint_cond=picture(0), used_hint_cond_latent=latent)
    call(unit, None, RowLayout(2, 6), torch.zeros(6, 4, 1, 1))
    assert unit.used_hint_cond_latent is latent
    call(unit, None, RowLayout(2, 4), torch.zeros(4, 4, 1, 1))
    assert unit.used_hint_cond_latent is None


class Embedding(SimpleNamespace):
    def _replace(self, cond_emb):
        return Embedding(cond_emb=cond_emb)


def test_an_ip_adapter_keeps_keys_and_values_of_each_kind_of_call():
    model = SimpleNamespace(cache={}, image_emb=Embedding(cond_emb=torch.zeros(1, 1, 1)))
    calls = AdaptedCalls(model, torch.arange(6.0).view(6, 1, 1))
    prompts = torch.full((2, 3, 4), marks.MARK)
    calls.begin([2, 3], prompts)
    first = model.cache
    assert model.image_emb.cond_emb.flatten().tolist() == [2, 3]
    calls.begin([2, 3], -prompts)
    assert model.cache is not first
    calls.begin([2, 3], prompts)
    assert model.cache is first
    for frame in range(20):
        calls.begin([frame % 6, frame // 6], prompts)
    calls.begin([2, 3], prompts)
    assert model.cache is not first  # only some are kept


def test_embeddings_travel_between_keyframes_as_prompts_do():
    ends = [torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])]
    linear = travelling(ends, (0, 2), 4, "lerp", closed=False)
    assert linear[:, 0].tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
    half = 0.5**0.5
    torch.testing.assert_close(travelling(ends, (0, 2), 4, "slerp", closed=False)[1, 0], torch.tensor([half, half]))


def test_prompts_travel_beside_controlnets_marks():
    travel = Travel((Keyframe(0, 0, "a"), Keyframe(2, 2, "b")), 3)
    rows = torch.zeros(3, 2, 2)
    rows[0, 1], rows[1, 1], rows[2, 1] = torch.tensor([1.0, 0]), torch.tensor([1.0, 0]), torch.tensor([0, 1.0])
    marked = torch.cat([torch.full((3, 1, 2), marks.MARK), rows], dim=1)
    params = SimpleNamespace(text_cond=marked, text_uncond=None)
    prompt_travel.mix({"prompts": travel}, params, 1, "slerp", hires=False)
    assert (params.text_cond[:, 0] == marks.MARK).all()
    torch.testing.assert_close(params.text_cond[1, 2], torch.tensor([0.5**0.5, 0.5**0.5]))


def test_other_hints_have_another_digest():
    """A clip is resumed only with the hints that it began with."""
    first, same, other = (UnitHints(filled(2, of), Hints(2, of)).digest() for of in ([0, 1], [0, 1], [1, 0]))
    assert first == same != other


def test_units_do_not_act_in_another_checkpoint():
    network = SimpleNamespace(control_params=[], model=SimpleNamespace())
    with (
        pytest.raises(AnimateDiffError, match="only in the checkpoint that the video began with"),
        UNetCalls(None, network, {}, lambda rows: RowLayout(1, rows)).applied_to(SimpleNamespace(forward=None)),
    ):
        pass
