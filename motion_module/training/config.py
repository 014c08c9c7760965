"""What a training is told: one YAML file, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from ..checkpoint import describe
from ..errors import UserError
from ..noise_schedule import ANIMATEDIFF, STABLE_DIFFUSION, NoiseSchedule
from ..weight_files import CheckpointError

Subject = Literal["motion module", "motion lora", "domain adapter"]
Precision = Literal["full", "fp16", "bf16"]
PIXELS_PER_LATENT = 8
SIZE_STEP = 64
"""Sides of clips are multiples of this: four levels of the UNet below eight pixels a latent."""


class ConfigError(UserError):
    """A training cannot be as it is described. The text is for the user."""


@dataclass(frozen=True)
class Validation:
    """Clips that are made now and then from the weights so far, to look at."""

    prompts: tuple[str, ...] = ()
    every: int = 500
    steps: int = 25
    cfg: float = 8.0


@dataclass(frozen=True)
class Config:
    """A training. The defaults are the authors' (`configs/training/v1/training.yaml`), where they have the option.

    `train`: what is trained. `base`: the checkpoint of the image model. `data`: a folder of videos, or of folders of frames,
    with a caption in a `.txt` beside each; or a CSV file with the columns `videoid` and `name` (WebVid's), whose videos are in
    the folder `videos`. `output`: the file to write. `folder`: of state, cache, log and validation clips; by default it lies
    beside the output.

    `motion_module`: of a motion LoRA, what it is for; of a motion module, what to go on from. `domain_adapter`: a LoRA for the
    base that is in place while a motion module is trained.

    `frames`, `stride`: a clip is every `stride`-th frame of a video. `size`: pixels; clips are cropped to the shape nearest to
    theirs with about `size`² pixels. `horizontal_flip`: each clip is seen mirrored too, with left and right exchanged in its
    caption. `noise_schedule`: what is straight in it, and where it begins and ends; by default that of the motion module that
    the training builds on, where there is one.

    `batch`: clips at once on each device. `accumulate`: batches for one step. `learning_rate`: reached after `warm_up` steps.
    `ema`: how much of the mean of the weights is kept in a step; the file that is written holds the mean. `caption_dropout`: of
    the clips, the part that is learned without its caption. `rank`: of a LoRA. `precision`: what the base
    computes in; what is trained stays whole. `save_every`: steps between saved states.
    `licence`: what the header of the file says of it.
    """

    train: Subject
    base: Path
    data: Path
    output: Path
    videos: Path | None = None
    folder: Path = Path()
    motion_module: Path | None = None
    domain_adapter: Path | None = None
    frames: int = 16
    stride: int = 4
    size: int = 256
    horizontal_flip: bool = False
    noise_schedule: NoiseSchedule = ANIMATEDIFF
    steps: int = 10_000
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 1e-4
    warm_up: int = 0
    weight_decay: float = 0.01
    ema: float = 0.999
    caption_dropout: float = 0.1
    rank: int = 32
    precision: Precision = "full"
    gradient_checkpointing: bool = False
    seed: int = 42
    save_every: int = 500
    validation: Validation = field(default_factory=Validation)
    licence: str = ""

    @property
    def span(self) -> int:
        """Frames of a video that a clip reaches over."""
        return (self.frames - 1) * self.stride + 1

    def described(self) -> dict[str, Any]:
        """All of it in numbers and texts."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


MAY_CHANGE = (
    "steps",
    "batch",
    "learning_rate",
    "warm_up",
    "precision",
    "output",
    "folder",
    "save_every",
    "gradient_checkpointing",
    "validation",
    "licence",
    "data",
    "videos",
    "base",
    "motion_module",
    "domain_adapter",
)
"""What may differ when a training goes on. Files may have moved: that they are the same is seen from what is in them. Other
devices may have other batches, if these are as many clips together."""


def read_config(path: Path) -> Config:
    """Reads a YAML file. Paths in it are relative to its folder. Raises ConfigError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} is empty. It needs lines such as `train: motion module`.")
    return config_of(content, path.resolve().parent)


def config_of(content: dict[str, Any], beside: Path) -> Config:
    """Checks options and fills in what is not said. Paths are relative to `beside`. Raises ConfigError."""
    values = _typed(Config, content, beside)
    output = values.get("output")
    if output and output.suffix != ".safetensors":
        raise ConfigError(f"output: {output.name} must end with .safetensors.")
    if output and "folder" not in values:
        values["folder"] = output.with_name(f"{output.stem}-training")
    if values.get("train") == "domain adapter":  # which is learned as the base was: from pictures, on its own schedule
        values = {"noise_schedule": STABLE_DIFFUSION, **values, "frames": 1}
    config = Config(**values)
    _check(config)
    return (
        _on_schedule_of_module(config, config.motion_module, values.get("noise_schedule")) if config.motion_module else config
    )


def _on_schedule_of_module(config: Config, module: Path, asked: NoiseSchedule | None) -> Config:
    """The options with the noise schedule of the motion module that a training builds on. Raises ConfigError.

    A LoRA is used on that schedule; a module may go on with another one.
    """
    try:
        schedule = describe(module).require_motion_module().schedule
    except CheckpointError as error:
        raise ConfigError(f"motion_module: {error}") from error
    if config.train == "motion lora" and asked not in (None, schedule):
        raise ConfigError(
            f"noise_schedule: {module.name} was trained with another one, and so must be its LoRA. Leave this option out."
        )
    return replace(config, noise_schedule=asked or schedule)


def _typed(kind: type[Any], content: dict[str, Any], beside: Path) -> dict[str, Any]:
    known = {entry.name: entry for entry in fields(kind)}
    hints = get_type_hints(kind)
    if strange := sorted(set(content) - set(known)):
        raise ConfigError(f"{strange[0]}: there is no such option. There are {', '.join(known)}.")
    given = {name: _value(name, hints[name], value, beside) for name, value in content.items() if value is not None}
    required = [name for name in ("train", "base", "data", "output") if name in known and name not in given]
    if required:
        raise ConfigError(f"{required[0]}: this option is needed. What it means is in docs/training.md.")
    return given


def _value(name: str, hint: Any, value: Any, beside: Path) -> Any:
    """A value of YAML as the type of its option."""
    choices = get_args(hint)
    if hint in (Path, Path | None) and isinstance(value, str):
        return (beside / Path(value).expanduser()).resolve()
    if hint in (Validation, NoiseSchedule) and isinstance(value, dict):
        return hint(**_typed(hint, value, beside))
    if hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if choices and value in choices:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    if hint is float and isinstance(value, str):  # YAML takes 1e-4 for a text
        try:
            return float(value)
        except ValueError:
            pass
    wanted = " or ".join(map(str, choices)) if choices and all(isinstance(c, str) for c in choices) else _IN_WORDS.get(hint, "")
    raise ConfigError(f"{name}: {value!r} is not {wanted or 'what this option takes'}.")


_IN_WORDS: dict[Any, str] = {
    Path: "a path",
    Path | None: "a path",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple[str, ...]: "a list of texts",
}


def _check(config: Config) -> None:
    """Raises ConfigError for what is out of bounds or does not fit together."""
    schedule, validation = config.noise_schedule, config.validation
    counts = ("frames", "stride", "steps", "batch", "accumulate", "rank", "save_every")
    faults = {
        **{f"{name}: it must be 1 or more.": getattr(config, name) < 1 for name in counts},
        "frames: a clip needs 2 or more.": config.train != "domain adapter" and config.frames < 2,
        f"size: it must be a multiple of {SIZE_STEP}, such as 256.": config.size < SIZE_STEP or config.size % SIZE_STEP != 0,
        "caption_dropout and ema: they are parts of a whole, from 0 to 1.": (
            not 0 <= config.caption_dropout <= 1 or not 0 <= config.ema < 1
        ),
        "learning_rate: it must be more than 0.": config.learning_rate <= 0,
        "seed, weight_decay and warm_up: they must be 0 or more.": min(config.seed, config.weight_decay, config.warm_up) < 0,
        "validation: every and steps must be 1 or more.": min(validation.every, validation.steps) < 1,
        "noise_schedule: first and last must rise from above 0 to below 1, and steps must be 1000.": (
            not 0 < schedule.first < schedule.last < 1 or schedule.steps != ANIMATEDIFF.steps
        ),
        "motion_module: say for which motion module the LoRA is to be trained.": (
            config.train == "motion lora" and config.motion_module is None
        ),
        "motion_module: a domain adapter is trained without one. Leave it out.": (
            config.train == "domain adapter" and config.motion_module is not None
        ),
        "domain_adapter: it acts only while a motion module is trained. Leave it out.": (
            config.train != "motion module" and config.domain_adapter is not None
        ),
        "videos: with a CSV file as data, say in which folder the videos are.": (
            config.data.suffix.lower() == ".csv" and config.videos is None
        ),
    }
    for text, wrong in faults.items():
        if wrong:
            raise ConfigError(text)
