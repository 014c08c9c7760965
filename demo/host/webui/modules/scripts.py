"""Stands in for `modules.scripts`: loads the scripts of extensions, and calls their hooks."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import errors, extensions

AlwaysVisible = object()
_loading = Path.cwd()


class Script:
    """The base class of scripts. A script may define any hook of `ScriptRunner`."""

    args_from = 0
    args_to = 0
    is_img2img = False
    controls: list[Any]

    def title(self) -> str:
        raise NotImplementedError

    def show(self, is_img2img: bool) -> Any:
        return True

    def ui(self, is_img2img: bool) -> list[Any] | None:
        return None

    def elem_id(self, name: str) -> str:
        return f"script_{self.title().lower().replace(' ', '_')}_{name}"


@dataclass
class PostSampleArgs:
    samples: Any


@dataclass
class PostprocessImageArgs:
    image: Any


@dataclass
class PostprocessBatchListArgs:
    images: list[Any]


def basedir() -> str:
    """Returns the folder of the extension whose script is being loaded."""
    return str(_loading)


def load_scripts() -> list[type[Script]]:
    """Executes `scripts/*.py` of every extension, as modules outside `sys.modules`, as the WebUI does."""
    global _loading
    classes: list[type[Script]] = []
    for extension in extensions.active():
        for file in sorted(Path(extension.path, "scripts").glob("*.py")):
            _loading = Path(extension.path)
            with _importable(extension.path):
                try:
                    classes += _classes_of(file)
                except Exception:
                    errors.report(f"The script {file} could not be loaded", exc_info=True)
    return classes


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def _classes_of(file: Path) -> list[type[Script]]:
    spec = importlib.util.spec_from_file_location(file.name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = (value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Script))
    return [kind for kind in classes if kind is not Script]


class ScriptRunner:
    """Holds the scripts of one tab, and calls their hooks."""

    def __init__(self, classes: list[type[Script]], is_img2img: bool) -> None:
        self.is_img2img = is_img2img
        self.classes = classes
        self.alwayson_scripts: list[Script] = []
        self.selectable_scripts: list[Script] = []
        self.inputs: list[Any] = []

    def setup_ui(self) -> None:
        """Builds the controls of all scripts. Call it inside `gradio.Blocks`. The first of all arguments is the host's own.

        Each call creates the scripts anew, because a script may remember the controls of its page.
        """
        shown = [(script, script.show(self.is_img2img)) for script in (kind() for kind in self.classes)]
        self.alwayson_scripts = [script for script, visible in shown if visible is AlwaysVisible]
        self.selectable_scripts = [script for script, visible in shown if visible and visible is not AlwaysVisible]
        self.inputs = [None]
        for script in (*self.alwayson_scripts, *self.selectable_scripts):
            script.is_img2img = self.is_img2img
            script.controls = script.ui(self.is_img2img) or []
            script.args_from = len(self.inputs)
            self.inputs += script.controls
            script.args_to = len(self.inputs)

    def after_component(self, component: Any) -> None:
        """Passes a control of the page to the scripts that ask for it."""
        for script in self.alwayson_scripts:
            if method := getattr(script, "after_component", None):
                method(component, elem_id=component.elem_id)

    def default_arguments(self) -> list[Any]:
        return [control.value if control is not None else 0 for control in self.inputs]

    def find(self, title: str) -> Script | None:
        return _titled(self.alwayson_scripts, title)

    def number_of(self, title: str) -> int:
        """Returns the number, from 1, of a script that is chosen by name: the first of all arguments. Raises ValueError."""
        return self.selectable_scripts.index(_titled(self.selectable_scripts, title)) + 1

    def run(self, p: Any, *args: Any) -> Any:
        """Runs the script that is chosen by name. Returns None if there is none."""
        if not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        return script.run(p, *args[script.args_from : script.args_to])

    def _call(self, hook: str, p: Any, *args: Any, **kwargs: Any) -> None:
        for script in self.alwayson_scripts:
            if not (method := getattr(script, hook, None)):
                continue
            try:
                method(p, *args, *p.script_args[script.args_from : script.args_to], **kwargs)
            except Exception:
                errors.report(f"{script.title()}: {hook} failed", exc_info=True)

    def setup(self, p: Any) -> None:
        self._call("setup", p)

    def before_process(self, p: Any) -> None:
        self._call("before_process", p)

    def process(self, p: Any) -> None:
        self._call("process", p)

    def before_process_batch(self, p: Any, **kwargs: Any) -> None:
        self._call("before_process_batch", p, **kwargs)

    def after_extra_networks_activate(self, p: Any, **kwargs: Any) -> None:
        self._call("after_extra_networks_activate", p, **kwargs)

    def process_batch(self, p: Any, **kwargs: Any) -> None:
        self._call("process_batch", p, **kwargs)

    def process_before_every_sampling(self, p: Any, **kwargs: Any) -> None:
        self._call("process_before_every_sampling", p, **kwargs)

    def before_hr(self, p: Any) -> None:
        self._call("before_hr", p)

    def post_sample(self, p: Any, samples: PostSampleArgs) -> None:
        self._call("post_sample", p, samples)

    def postprocess_batch(self, p: Any, images: Any, **kwargs: Any) -> None:
        self._call("postprocess_batch", p, images=images, **kwargs)

    def postprocess_batch_list(self, p: Any, images: PostprocessBatchListArgs, **kwargs: Any) -> None:
        self._call("postprocess_batch_list", p, images, **kwargs)

    def postprocess_image(self, p: Any, image: PostprocessImageArgs) -> None:
        self._call("postprocess_image", p, image)

    def postprocess_image_after_composite(self, p: Any, image: PostprocessImageArgs) -> None:
        self._call("postprocess_image_after_composite", p, image)

    def postprocess(self, p: Any, processed: Any) -> None:
        self._call("postprocess", p, processed)


def _titled(scripts: list[Script], title: str) -> Any:
    return next((script for script in scripts if script.title().lower() == title.lower()), None)


scripts_txt2img: ScriptRunner
scripts_img2img: ScriptRunner


def create_runners() -> None:
    global scripts_txt2img, scripts_img2img
    classes = load_scripts()
    scripts_txt2img, scripts_img2img = ScriptRunner(classes, False), ScriptRunner(classes, True)
