"""The import paths under which other extensions look for an AnimateDiff."""

import copy
import importlib
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.nn import functional

from motion_module.row_layout import RowLayout
from motion_module.weight_files import CheckpointError
from support import control_models

ROOT = Path(__file__).resolve().parents[2]
KEYS_OF_SPARSE_CTRL = 160
DOCUMENTED = {
    "model": "mm_sd15_v3.safetensors",
    "enable": False,
    "video_length": 0,
    "fps": 8,
    "loop_number": 0,
    "closed_loop": "R-P",
    "batch_size": 16,
    "stride": 1,
    "overlap": -1,
    "format": ["GIF", "PNG"],
    "interp": "Off",
    "interp_x": 10,
    "video_source": None,
    "video_path": "",
    "mask_path": "",
    "freeinit_enable": False,
    "freeinit_filter": "butterworth",
    "freeinit_ds": 0.25,
    "freeinit_dt": 0.25,
    "freeinit_iters": 3,
    "latent_power": 1,
    "latent_scale": 32,
    "last_frame": None,
    "latent_power_last": 1,
    "latent_scale_last": 32,
    "request_id": "",
    "is_i2i_batch": False,
    "video_default": False,
    "prompt_scheduler": None,
}


@pytest.fixture(scope="module")
def paths():
    """The module that registers them, with the stand-in WebUI's `modules` and without our jobs, which need its samplers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "demo" / "host" / "webui")
        jobs = ModuleType("animatediff.job.job")
        jobs.job_of = lambda p: p.job
        patch.setitem(sys.modules, jobs.__name__, jobs)
        patch.delitem(sys.modules, "animatediff.import_paths", raising=False)
        yield importlib.import_module("animatediff.import_paths")
        del sys.modules["animatediff.import_paths"]


@pytest.fixture
def registered(paths):
    paths.register()
    yield paths
    paths.unregister()


def request(values, job=None):
    """A generation whose AnimateDiff has these values in the place of the panel's. `job`: what has begun of it."""
    ours = SimpleNamespace(title=lambda: "AnimateDiff", args_from=1, args_to=2)
    scripts = SimpleNamespace(alwayson_scripts=[ours], run=lambda p, *arguments: None)
    facts = {"outpath_samples": "", "width": 64, "height": 64, "image_mask": None}
    return SimpleNamespace(scripts=scripts, script_args=(0, values), job=job, **facts)


def test_paths_come_and_go_with_our_scripts(registered):
    from scripts.animatediff_mm import MotionWrapper

    registered.unregister()
    with pytest.raises(ImportError):
        importlib.import_module("scripts.animatediff_mm")
    registered.register()
    assert importlib.import_module("scripts.animatediff_mm").MotionWrapper is MotionWrapper


# --- requests as sd-webui-replacer makes them ---


@pytest.mark.parametrize("scripts", [None, SimpleNamespace(alwayson_scripts=[])])
def test_a_generation_without_scripts_asks_for_nothing(registered, scripts):
    """ControlNet asks before every generation, also before those of other extensions."""
    from scripts.animatediff_utils import get_animatediff_arg

    assert not get_animatediff_arg(SimpleNamespace(scripts=scripts, script_args=None, job=None)).enable


def test_a_request_has_its_parameters_as_attributes(registered):
    from scripts.animatediff_ui import AnimateDiffProcess

    given = AnimateDiffProcess()
    assert {name: getattr(given, name) for name in DOCUMENTED} == DOCUMENTED
    assert AnimateDiffProcess(**DOCUMENTED) == given
    given.fps = 12
    for copied in (copy.deepcopy(given), copy.copy(given), pickle.loads(pickle.dumps(given))):
        assert copied.fps == 12 and type(copied) is AnimateDiffProcess
    with pytest.raises(AttributeError, match="nonsense"):
        given.nonsense  # noqa: B018


def test_a_request_takes_the_place_of_a_dictionary(registered):
    from scripts.animatediff_ui import AnimateDiffProcess
    from scripts.animatediff_utils import get_animatediff_arg

    given = AnimateDiffProcess(enable=True, video_length=24, closed_loop="A", format=["PNG"])
    read = get_animatediff_arg(request(given))
    assert (read.enable, read.video_length, read.batch_size, read.closed_loop) == (True, 24, 16, "A")
    assert registered.read_arguments([given], {})[1] == []
    assert not get_animatediff_arg(request(AnimateDiffProcess())).enable
    assert get_animatediff_arg(request({"enable": True, "video_length": -1})) is None
    begun = SimpleNamespace(params=registered.Params(enable=True, video_length=7))
    assert get_animatediff_arg(request(given, begun)).video_length == 7


# --- what ControlNet asks for ---


def test_conditions_travel_between_keyframes(registered):
    from scripts.animatediff_utils import get_animatediff_arg

    read = get_animatediff_arg(request({"enable": True}))
    read.is_i2i_batch = True
    scheduler = copy.deepcopy(read.prompt_scheduler)
    scheduler.prompt_map = {0: "", 4: ""}
    levels = torch.tensor([0, 9, 9, 9, 4, 9, 9, 9], dtype=torch.float16).view(8, 1, 1).expand(8, 2, 3)
    travelled = scheduler.multi_cond(levels, False)
    assert travelled.shape == (8, 2, 3) and travelled.dtype == torch.float16
    assert travelled[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert scheduler.multi_cond(levels, True)[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


@pytest.fixture
def page(paths, monkeypatch):
    """A stand-in for the WebUI's module of img2img, whose own function makes pictures."""
    page = ModuleType("modules.img2img")
    page.process_images = lambda p: f"a clip from {len(p.init_images)} images"
    page.process_batch = lambda *arguments, **named: "pictures"
    monkeypatch.setitem(sys.modules, "modules.img2img", page)
    monkeypatch.setattr(sys.modules["modules"], "img2img", page, raising=False)
    return page


def replace_as_controlnet_does(page):
    before = page.process_batch

    def process_batch(p, *arguments, **named):
        from scripts.animatediff_i2ibatch import animatediff_i2i_batch
        from scripts.animatediff_utils import get_animatediff_arg

        arg = get_animatediff_arg(p)
        return (animatediff_i2i_batch if arg and arg.enable else before)(p, *arguments, **named)

    page.process_batch = process_batch


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_batch_tab_makes_a_clip_whichever_extension_came_first(registered, page, tmp_path, ours_first):
    for number in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{number}.png")
    replacing = [registered.batch_tab.replace_loop, lambda: replace_as_controlnet_does(page)]
    for replace in replacing if ours_first else replacing[::-1]:
        replace()
    named = {"to_scale": False, "scale_by": 1.0, "use_png_info": False, "png_info_props": [], "png_info_dir": ""}
    on, off = request({"enable": True}), request({"enable": False})
    assert page.process_batch(on, str(tmp_path), "out", "", on.script_args, **named) == "a clip from 3 images"
    assert on.outpath_samples == "out"
    assert page.process_batch(off, str(tmp_path), "out", "", off.script_args, **named) == "pictures"


# --- SparseCtrl ---


@pytest.fixture(scope="module")
def weights():
    """The weights of SparseCtrl's motion layers, in its published layout."""
    everything = control_models.sparse_ctrl_motion(seed=1)
    assert len(everything) == KEYS_OF_SPARSE_CTRL
    return everything


@pytest.fixture
def layers(registered, weights):
    from scripts.animatediff_mm import MotionModuleType, MotionWrapper

    wrapper = MotionWrapper("", "", MotionModuleType.SparseCtrl)
    wrapper.load_state_dict(weights, strict=True)
    return wrapper.float().eval().requires_grad_(False)


def test_the_layers_of_sparse_ctrl_are_ordinary_layers_of_one_attention(layers):
    widths = [[layer.transformer.norm.num_channels for layer in level.motion_modules] for level in layers.down_blocks]
    assert widths == [[320] * 2, [640] * 2, [1280] * 2, [1280] * 2]
    layer = layers.down_blocks[0].motion_modules[1]
    assert len(layer.transformer.attentions) == 1
    x = torch.randn(4, 320, 3, 2)
    together, alone = layer(x), torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(together, alone)  # without a job, rows are pictures of their own
    assert not torch.allclose(together, x)


def test_the_layers_of_sparse_ctrl_mix_the_frames_of_a_clip(layers, weights):
    layer = layers.down_blocks[1].motion_modules[0]
    layer.layout_of = lambda rows: RowLayout(rows // 2, rows)
    x = torch.randn(6, 640, 2, 2)
    changed = x.clone()
    changed[0] += torch.randn(640, 2, 2)
    differs = (layer(x) - layer(changed)).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert differs.tolist() == [True, True, True, False, False, False]


def test_the_layers_of_sparse_ctrl_compute_what_the_authors_do(layers, weights):
    """Against the authors' maths for a layer, of which this one has the first attention only."""
    name = "down_blocks.0.motion_modules.0.temporal_transformer."
    own = {key.removeprefix(name): value.float() for key, value in weights.items() if key.startswith(name)}
    layer = layers.down_blocks[0].motion_modules[0]
    layer.layout_of = lambda rows: RowLayout(rows, rows)
    x = torch.randn(5, 320, 2, 2)
    torch.testing.assert_close(layer(x), by_hand(own, x), rtol=1e-4, atol=1e-4)


def by_hand(own, x):
    """The layer as its paper describes it: one attention between the frames, then a feed-forward."""
    block = "transformer_blocks.0."
    attention = block + "attention_blocks.0."

    def linear(name, z):
        return functional.linear(z, own[f"{name}.weight"], own.get(f"{name}.bias"))

    def norm(name, z):
        return functional.layer_norm(z, z.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"])

    def heads(name, z):
        return linear(attention + name, z).unflatten(-1, (8, -1)).transpose(-2, -3)

    hidden = functional.group_norm(x, 32, own["norm.weight"], own["norm.bias"], 1e-6)
    hidden = linear("proj_in", hidden.permute(2, 3, 0, 1))  # (height, width, frames, channels)
    given = norm(block + "norms.0", hidden) + own[attention + "pos_encoder.pe"][0, : len(x)]
    weights = torch.softmax(heads("to_q", given) @ heads("to_k", given).mT / (x.shape[1] / 8) ** 0.5, dim=-1)
    mixed = (weights @ heads("to_v", given)).transpose(-2, -3).flatten(-2)
    hidden = hidden + linear(attention + "to_out.0", mixed)
    value, gate = linear(block + "ff.net.0.proj", norm(block + "ff_norm", hidden)).chunk(2, dim=-1)
    hidden = hidden + linear(block + "ff.net.2", value * functional.gelu(gate))
    return x + linear("proj_out", hidden).permute(2, 3, 0, 1)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_weights_that_are_not_those_of_sparse_ctrl_are_refused(layers, weights, change):
    name = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"
    if change == "missing":
        wrong = {key: value for key, value in weights.items() if key != name}
    else:
        name = name.replace("down", "up")
        wrong = {**weights, name: torch.zeros(320)}
    with pytest.raises(CheckpointError, match=f"{name} is {change}"):
        layers.load_state_dict(wrong, strict=True)
