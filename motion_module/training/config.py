"""The options of a training: one YAML file, which is checked before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from ..checkpoint import describe
from ..errors import UserError
from ..noise_schedule import ANIMATEDIFF, STABLE_DIFFUSION, NoiseSchedule
from ..weight_files import CheckpointError

Subject = Literal["motion module", "motion lora", "domain adapter", "sparsectrl"]
FOR_A_MODULE = {"motion lora": "a motion LoRA", "sparsectrl": "a SparseCtrl model"}
"""What is trained for an existing motion module, which stays as it is."""
Precision = Literal["full", "fp16", "bf16"]
PIXELS_PER_LATENT = 8
SIZE_STEP = 64
"""Sides of clips are multiples of this many pixels: 8 pixels per latent, times 8 for the UNet's three downsamplings."""


class ConfigError(UserError):
    """The options of a training are wrong. The text is for the user."""


@dataclass(frozen=True)
class Validation:
    """Clips that are generated every so many steps to see how the training proceeds."""

    prompts: tuple[str, ...] = ()
    every: int = 500
    steps: int = 25
    cfg: float = 8.0


@dataclass(frozen=True)
class Config:
    """The options of a training. Defaults are the authors' (`configs/training/v1/training.yaml`), if they have the option.

    `train`: what is trained. `base`: the checkpoint of the image model. `data`: a folder of videos, or of folders of frames,
    each with a caption in a `.txt` of the same name; or a CSV file with the columns `videoid` and `name` (WebVid's), whose
    videos are in the folder `videos`. `output`: the file to write. `folder`: for state, cache, log and validation clips; by
    default it is next to the output.

    `motion_module`: for a motion LoRA or a SparseCtrl model, the module that it is for; for a motion module, the one to start
    from.
    `domain_adapter`: a LoRA that is applied to the base while a motion module is trained.

    `frames`, `stride`: a clip is every `stride`-th frame of a video. `size`: in pixels; clips are cropped to the aspect ratio
    nearest to their own with about `size`² pixels. `horizontal_flip`: whether each clip is also used mirrored, with left and
    right exchanged in its caption. `noise_schedule`: its curve, first and last value; by default that of `motion_module`.

    `batch`: clips per pass on each device. `accumulate`: batches per step. `learning_rate`: reached after `warm_up` steps.
    `ema`: the decay of the exponential moving average of the weights, which is what the output file contains.
    `caption_dropout`: the fraction of clips that are trained without their caption. `rank`: of a LoRA. `precision`: the dtype
    that the base computes in; what is trained stays in float32. `save_every`: steps between saved states. `licence`: for the
    header of the file.
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
        """The number of consecutive frames of a video that a clip is taken from."""
        return (self.frames - 1) * self.stride + 1

    def described(self) -> dict[str, Any]:
        """Returns all options as numbers and texts."""
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
"""The options that may change when a training is resumed. Files may have been moved: they are identified by their content. The
batch may change with the number of devices, if the number of clips per step stays the same."""


def read_config(path: Path) -> Config:
    """Reads options from a YAML file. Paths in it are relative to its folder. Raises ConfigError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not YAML: {error}. Correct it there.") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path.name} has no options. Write lines such as `train: motion module` into it; docs/training.md describes them."
        )
    return config_of(content, path.resolve().parent)


def config_of(content: dict[str, Any], folder: Path) -> Config:
    """Checks options and fills in defaults. Paths are relative to `folder`. Raises ConfigError."""
    values = _typed(Config, content, folder)
    output = values.get("output")
    if output and output.suffix != ".safetensors":
        raise ConfigError(f"output: {output.name} does not end with .safetensors. Give it such a name.")
    if output and "folder" not in values:
        values["folder"] = output.with_name(f"{output.stem}-training")
    if values.get("train") == "domain adapter":  # trained as the base was: on images, with its own schedule
        values = {"noise_schedule": STABLE_DIFFUSION, **values, "frames": 1}
    config = Config(**values)
    _check(config)
    return (
        _with_schedule_of_module(config, config.motion_module, values.get("noise_schedule")) if config.motion_module else config
    )


def _with_schedule_of_module(config: Config, module: Path, chosen: NoiseSchedule | None) -> Config:
    """Returns the options with the noise schedule of the motion module that a training starts from. Raises ConfigError.

    What is made for a module needs its schedule; a module may be trained further with another one.
    """
    try:
        schedule = describe(module).require_motion_module().schedule
    except CheckpointError as error:
        raise ConfigError(f"motion_module: {error}") from error
    if config.train in FOR_A_MODULE and chosen not in (None, schedule):
        raise ConfigError(
            f"noise_schedule: {module.name} was trained with another one, and {FOR_A_MODULE[config.train]} for it needs the "
            "same. Remove this option."
        )
    return replace(config, noise_schedule=chosen or schedule)


def _typed(kind: type[Any], content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns options by name, as the types of the fields of `kind`. Raises ConfigError."""
    known = {entry.name: entry for entry in fields(kind)}
    hints = get_type_hints(kind)
    if unknown := sorted(set(content) - set(known)):
        raise ConfigError(f"{unknown[0]}: there is no such option. Remove it, or use one of {', '.join(known)}.")
    given = {name: _value(name, hints[name], value, folder) for name, value in content.items() if value is not None}
    required = [name for name in ("train", "base", "data", "output") if name in known and name not in given]
    if required:
        raise ConfigError(f"{required[0]}: this option is required. Add it; docs/training.md describes it.")
    return given


def _value(name: str, hint: Any, value: Any, folder: Path) -> Any:
    """Returns a value from YAML as the type of its option. Raises ConfigError."""
    choices = get_args(hint)
    if hint in (Path, Path | None) and isinstance(value, str):
        return (folder / Path(value).expanduser()).resolve()
    if hint in (Validation, NoiseSchedule) and isinstance(value, dict):
        return hint(**_typed(hint, value, folder))
    if hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if choices and value in choices:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    if hint is float and isinstance(value, str):  # YAML reads 1e-4 as a text
        try:
            return float(value)
        except ValueError:
            pass
    wanted = " or ".join(map(str, choices)) if choices and all(isinstance(c, str) for c in choices) else _IN_WORDS.get(hint, "")
    raise ConfigError(f"{name}: {value!r} is not {wanted or 'valid for this option'}. docs/training.md describes it.")


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
    """Raises ConfigError for values that are out of range or do not fit together."""
    schedule, validation = config.noise_schedule, config.validation
    counts = ("frames", "stride", "steps", "batch", "accumulate", "rank", "save_every")
    faults = {
        **{f"{name}: it must be 1 or more, not {getattr(config, name)}.": getattr(config, name) < 1 for name in counts},
        f"frames: it must be 2 or more, not {config.frames}.": config.train != "domain adapter" and config.frames < 2,
        f"size: it must be a multiple of {SIZE_STEP}, such as 256, not {config.size}.": config.size < SIZE_STEP
        or config.size % SIZE_STEP != 0,
        f"caption_dropout: it must be from 0 to 1, not {config.caption_dropout:g}.": (not 0 <= config.caption_dropout <= 1),
        f"ema: it must be from 0 to below 1, not {config.ema:g}.": not 0 <= config.ema < 1,
        f"learning_rate: it must be more than 0, not {config.learning_rate:g}.": config.learning_rate <= 0,
        **{
            f"{name}: it must be 0 or more, not {getattr(config, name):g}.": getattr(config, name) < 0
            for name in ("seed", "weight_decay", "warm_up")
        },
        f"validation: every and steps must be 1 or more, not {validation.every} and {validation.steps}.": (
            min(validation.every, validation.steps) < 1
        ),
        "noise_schedule: first must be above 0, last above first and below 1, and steps must be 1000, "
        f"not {schedule.first:g}, {schedule.last:g} and {schedule.steps}.": (
            not 0 < schedule.first < schedule.last < 1 or schedule.steps != ANIMATEDIFF.steps
        ),
        **{
            f"motion_module: this option is required for {what}. Set it to the motion module that it is for.": (
                config.train == train and config.motion_module is None
            )
            for train, what in FOR_A_MODULE.items()
        },
        "motion_module: a domain adapter is trained without a motion module. Remove this option.": (
            config.train == "domain adapter" and config.motion_module is not None
        ),
        "domain_adapter: it is only for the training of a motion module. Remove this option.": (
            config.train != "motion module" and config.domain_adapter is not None
        ),
        "videos: this option is required if data is a CSV file. Set it to the folder of the videos.": (
            config.data.suffix.lower() == ".csv" and config.videos is None
        ),
    }
    for text, wrong in faults.items():
        if wrong:
            raise ConfigError(text)
