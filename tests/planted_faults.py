"""Does the suite see faults? Each mutation breaks the extension in one way; the named tests must then fail.

    .venv/bin/python tests/planted_faults.py [-j JOBS] [--list] [PART_OF_A_NAME]

They run on a copy of the tree, on the embedded host. A mutation that no test sees makes this exit with 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    tests: str
    """Where it must be seen: a file below `tests`, or a test in it."""


RESIDUAL = """        if any(weight.dtype != x.dtype or not same_device(weight.device, device) for weight in weights):
            layer.to(device, x.dtype)
        windows = self._step_windows() if self._step_windows else None
        return layer.residual(x, layout, scale, windows, self.camera.in_layer(block, x, layout) if self.camera else None)"""
"""Of `motion_module/motion_layers.py`."""

MUTATIONS = (
    Mutation(
        "windows that did not fit into memory are left out",
        "motion_module/windowed_unet.py",
        "                self._budget.halve(size)\n                continue\n",
        "                self._budget.halve(size)\n                first += len(frames)\n                continue\n",
        "method/test_lack_of_memory.py",
    ),
    Mutation(
        "once frames wait in RAM, each call first tries without",
        "motion_module/layer_offload.py",
        "                self.begun = True ",
        "                self.begun = False ",
        "method/test_lack_of_memory.py",
    ),
    Mutation(
        "a call is made again though another extension may have counted in it",
        "motion_module/layer_offload.py",
        "not can_be_repeated(unet)",
        "False",
        "method/test_lack_of_memory.py",
    ),
    Mutation(
        "PIA's kernel is copied to the device in each call",
        "motion_module/attach.py",
        "if output.dtype not in kernels:",
        "if True:",
        "method/test_devices.py",
    ),
    Mutation(
        "numbers of frames are copied to the device for each layer",
        "motion_module/motion_layers.py",
        "if (key := (number, x.device)) not in self._given:",
        "if key := (number, x.device):",
        "method/test_devices.py",
    ),
    Mutation(
        "motion layers stay on the CPU",
        "motion_module/motion_layers.py",
        "            layer.to(device, x.dtype)\n        windows",
        "            layer.to(dtype=x.dtype)\n        windows",
        "method/test_devices.py",
    ),
    Mutation(
        "an LCM sampler of k-diffusion's knows no timesteps of AnimateLCM",
        "animatediff/job/samplers.py",
        'if self.funcname != "sample_lcm":',
        "if True:",
        "host/test_lcm_timesteps.py",
    ),
    Mutation(
        "a camera's features are merged into the second attention too",
        "motion_module/network.py",
        "            camera = None  # the second attention has none\n",
        "",
        "method/test_camera_ctrl.py",
    ),
    Mutation(
        "in windows of the attention, positions are not merged with the camera",
        "motion_module/network.py",
        "normed, positions = camera.merged(normed), camera.merged_positions(positions)",
        "normed = camera.merged(normed)",
        "method/test_camera_ctrl.py::test_windows_of_the_attention_merge_each_frames_own_features",
    ),
    Mutation(
        "each window has the camera of the first frames",
        "motion_module/camera_ctrl.py",
        "clips = layout.of_video(self._features[level])",
        "clips = self._features[level][: layout.frames].expand(layout.rows // layout.frames, -1, -1, -1, -1)",
        "method/test_camera_ctrl.py::test_in_a_window_each_frame_has_its_own_features",
    ),
    Mutation(
        "a camera is encoded in every UNet call",
        "motion_module/camera_ctrl.py",
        "        if self._strength and self._size != (height, width):",
        "        if self._strength:",
        "method/test_camera_ctrl.py::test_a_camera_is_encoded_once_for_each_size",
    ),
    Mutation(
        "upward blocks have the camera of other levels",
        "motion_module/camera_ctrl.py",
        'return int(level) if side == "down" else LEVELS - 1 - int(level)',
        "return int(level)",
        "method/test_camera_ctrl.py::test_the_levels_of_blocks",
    ),
    Mutation(
        "a camera's focal length ignores the size of the video",
        "motion_module/camera_poses.py",
        "across, down = (height * proportions, height) if proportions > width / height else (width, width / proportions)",
        "across, down = width, height",
        "method/test_camera_poses.py",
    ),
    Mutation(
        "poses are not relative to the first",
        "motion_module/camera_poses.py",
        "Trajectory(to_camera[0] @ torch.linalg.inv(to_camera)",
        "Trajectory(torch.linalg.inv(to_camera)",
        "method/test_camera_poses.py",
    ),
    Mutation(
        "a pan tilts the horizon",
        "motion_module/camera_poses.py",
        'return _about(matrix, _turn("y", step * ANGLE), matrix[:3, 3])',
        'return matrix @ _turn("y", step * ANGLE)',
        "method/test_camera_poses.py::test_a_pan_is_about_the_vertical_also_after_a_tilt",
    ),
    Mutation(
        "a light step repeats the last full one",
        "motion_module/light_steps.py",
        "torch.lerp(before, last, 1 + self.weight)",
        "last",
        "method/test_step_reuse.py",
    ),
    Mutation(
        "motion layers act again on kept features",
        "motion_module/motion_layers.py",
        "        if self._rests(block):",
        "        if False:",
        "method/test_step_reuse.py",
    ),
    Mutation(
        "a resumed clip goes on without the features of calls from the disk",
        "motion_module/step_reuse.py",
        "if key in self._run.unmade and not self._deep.has(*key):",
        "if False:",
        "method/test_step_reuse.py",
    ),
    Mutation(
        "a condition that the last full step left out is taken from an older one",
        "motion_module/step_reuse.py",
        "self._run.full.get(one) == last for one in call.conditions",
        "one in self._run.full for one in call.conditions",
        "method/test_step_reuse.py",
    ),
    Mutation(
        "light steps: a full call pushes out features that others still use",
        "motion_module/step_reuse.py",
        "if self._deep and is_of_full_step else nullcontext()",
        "if self._deep else nullcontext()",
        "method/test_step_reuse.py::test_a_full_call_in_a_light_step_keeps_nothing",
    ),
    Mutation(
        "light steps: a call of other guidance counts as a part of the prompt",
        "animatediff/host/unet_patcher.py",
        "return conditions if max(conditions) < parts else None",
        "return conditions",
        "host/test_conditions_of_a_call.py",
    ),
    Mutation(
        "a light step has context windows of its own",
        "animatediff/job/speed.py",
        "return self._light.full_before(self._step(), self._steps())",
        "return self._step()",
        "contract/test_speed.py",
    ),
    Mutation(
        "the marks of Forge are those of all rows where some are left out",
        "animatediff/host/unet_patcher.py",
        'options["cond_or_uncond"] if has_tiles else of_rows[::frames].tolist()',
        'options["cond_or_uncond"]',
        "host/test_conditions_of_a_call.py",
    ),
    Mutation(
        "a reference unit draws other noise in each window",
        "animatediff/controlnet/reference_noise.py",
        "if (number := next(numbers)) == len(drawn):",
        "if (number := len(drawn)) == len(drawn):",
        "host/test_reference_noise.py",
    ),
    Mutation(
        "a track shakes with the flow",
        "animatediff/detailer/tracks.py",
        "zip(*map(eased, (x, y, width, height)))",
        "zip(x, y, width, height)",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "boxes of a detector are taken as they are",
        "animatediff/detailer/tracks.py",
        "        boxes = smoothed(track.found[:count], track.moves[: count - 1])",
        "        boxes = [box or track.box for box in track.found[:count]]",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "a track drifts with the flow",
        "animatediff/detailer/tracks.py",
        "FLOW_ERROR = 0.08, 0.2",
        "FLOW_ERROR = 8.0, 0.2",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "a box around something else moves a track",
        "animatediff/detailer/tracks.py",
        "of_values / (1 + (off / FAR_OFF) ** 2)",
        "of_values",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "gaps in a track are not closed",
        "animatediff/detailer/tracks.py",
        "MOST_MISSED = 8",
        "MOST_MISSED = 0",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "a subject that enters appears at once",
        "animatediff/detailer/tracks.py",
        "enters, leaves = track.first > 0, ",
        "enters, leaves = False, ",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "a box on one frame is a subject",
        "animatediff/detailer/tracks.py",
        "FEWEST_SEEN = 2",
        "FEWEST_SEEN = 1",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "a YOLO detector gives boxes of the enlarged frame",
        "animatediff/detailer/yolo.py",
        ".scaled(1 / scale)",
        "",
        "host/test_yolo_detectors.py",
    ),
    Mutation(
        "a YOLO detector is as sure as may be",
        "animatediff/detailer/yolo.py",
        "if sure >= confidence",
        "if sure >= 0",
        "host/test_yolo_detectors.py",
    ),
    Mutation(
        "ultralytics builds whatever a detector describes",
        "animatediff/detailer/yolo_file.py",
        "if name not in LAYERS]",
        "if not name]",
        "host/test_yolo_detectors.py",
    ),
    Mutation(
        "a choice may have half a character",
        "animatediff/request/values.py",
        "        _read_text(name, value, option_of(field).longest)  # the answer",
        "        # the answer",
        "host/test_values.py",
    ),
    Mutation(
        "the smallest subject is first",
        "animatediff/detailer/tracks.py",
        "key=lambda track: -track.size",
        "key=lambda track: track.size",
        "host/test_detailer_tracks.py",
    ),
    Mutation(
        "crops are at whole pixels",
        "animatediff/detailer/crops.py",
        "    return min(max(corner, 0.0), whole - side)",
        "    return round(min(max(corner, 0.0), whole - side))",
        "host/test_detailer_crops.py",
    ),
    Mutation(
        "the detail changes pixels outside of its mask",
        "animatediff/detailer/crops.py",
        "    rising: Floats = np.clip(inside / max(feather, 1e-6), 0, 1)",
        "    rising: Floats = np.clip(0.1 + inside / max(feather, 1e-6), 0, 1)",
        "host/test_detailer_crops.py",
    ),
    Mutation(
        "the colours of the detail do not match at the seam",
        "animatediff/detailer/crops.py",
        "self._fitted(detail, index) + offset - inside",
        "self._fitted(detail, index) - inside",
        "host/test_detailer_crops.py",
    ),
    Mutation(
        "the colours at the seam make a subject flicker",
        "animatediff/detailer/crops.py",
        "STEADY = 4.0",
        "STEADY = 0.01",
        "host/test_detailer_crops.py",
    ),
    Mutation(
        "a crop is made smaller than it is",
        "animatediff/detailer/crops.py",
        "scale = max(1.0, side /",
        "scale = (side /",
        "host/test_detailer_crops.py",
    ),
    Mutation(
        "a subject's clip is shorter than keyframes count",
        "animatediff/detailer/detail.py",
        "track.throughout(len(frames)) if whole else track",
        "track",
        "host/test_detailed_subjects.py",
    ),
    Mutation(
        "an interrupt while subjects are looked for is not seen",
        "animatediff/detailer/detail.py",
        "        if around.is_interrupted():\n            raise Interrupted\n",
        "",
        "host/test_detailed_subjects.py",
    ),
    Mutation(
        "an interrupted subject stays half made",
        "animatediff/detailer/nested.py",
        "return None if is_interrupted() else processed.images[: len(pictures)]",
        "return processed.images[: len(pictures)]",
        "contract/test_detailer.py",
    ),
    Mutation(
        "detailing the same clip again gives other bits",
        "animatediff/job/resuming.py",
        "if self._takes_long or part_of(self._p) else",
        "if self._takes_long else",
        "contract/test_detailer.py",
    ),
    Mutation(
        "an error in a subject loses the clip",
        "animatediff/job/detailing.py",
        "    except Exception as error:\n        text = failure(",
        "    except ZeroDivisionError as error:\n        text = failure(",
        "contract/test_detailer.py",
    ),
    Mutation(
        "frames are saved before they are detailed",
        "animatediff/job/finished_frames.py",
        "    return params.details or shared.opts.data",
        "    return shared.opts.data",
        "contract/test_detailer.py",
    ),
    Mutation(
        "a subject is made without the motion module",
        "animatediff/detailer/nested.py",
        'own = {"enable": True, ',
        'own = {"enable": True, "motion_effect": 0.0, ',
        "contract/test_detailer.py",
    ),
    Mutation(
        "a subject's part of a clip can be resumed by itself",
        "animatediff/job/resuming.py",
        " and not part_of(self._p)",
        "",
        "contract/test_detailer.py",
    ),
    Mutation(
        "an extension that counts rows has all frames in a window",
        "animatediff/job/extension_rows.py",
        "type(members.get(name)) is int and members[name] == rows",
        "False",
        "contract/test_extension_rows.py",
    ),
    Mutation(
        "an extension that keeps something for each frame has all of it in a window",
        "animatediff/job/extension_rows.py",
        "    return value[frames.to(value.device)] if _have_rows([value], rows) else value",
        "    return value",
        "contract/test_extension_rows.py",
    ),
    Mutation(
        "an extension that counts calls counts each window",
        "animatediff/job/extension_rows.py",
        "            counter.restore()",
        "            pass",
        "contract/test_extension_rows.py",
    ),
    Mutation(
        "all combinations of Dynamic Prompts are frames of one video",
        "animatediff/job/dynamic_prompts.py",
        "if (combinatorial or jinja) and not",
        "if False and not",
        "host/test_dynamic_prompts.py",
    ),
    Mutation(
        "with the fixed seed of Dynamic Prompts all frames begin with the same noise",
        "animatediff/job/dynamic_prompts.py",
        "[first + frame * step for",
        "[first for",
        "host/test_dynamic_prompts.py",
    ),
    Mutation(
        "a sampler that another extension builds has the checkpoint's own schedule",
        "animatediff/job/job.py",
        "            self.animated.lend_schedule()",
        "            pass",
        "contract/test_samplers_of_others.py",
    ),
    Mutation(
        "windows of a call attend to the first frame of another clip",
        "motion_module/self_attention.py",
        "first.repeat_interleave(len(clips) // len(first), dim=0)",
        "first.repeat(len(clips) // len(first), 1, 1)",
        "method/test_first_frame_attention.py",
    ),
    Mutation(
        "an upload is an open file, which no queue can keep",
        "animatediff/page/upload_controls.py",
        '        return getattr(file, "name", file)\n',
        "        return file\n",
        "host/test_what_a_page_may_reach.py",
    ),
    Mutation(
        "a window of a Forge call takes tiles of the picture for conditions",
        "animatediff/host/unet_patcher.py",
        "// of_condition % len(marks)]",
        "// (rows // len(marks))]",
        "host/test_rows_of_a_forge_call.py",
    ),
    Mutation(
        "a window of a Forge call does not know which of its rows are of prompts",
        "animatediff/host/unet_patcher.py",
        '        "cond_indices": (of_rows == PROMPT).nonzero().flatten().tolist(),\n',
        "",
        "host/test_rows_of_a_forge_call.py",
    ),
    Mutation(
        "in a WebUI that lacks something, the script fails",
        "scripts/animatediff.py",
        "    except (ImportError, AttributeError) as error:",
        "    except ZeroDivisionError as error:",
        "contract/test_where_it_cannot_run.py",
    ),
    Mutation(
        "a panel that cannot be built fails the page",
        "scripts/animatediff.py",
        "            except Exception as error:  # a WebUI",
        "            except ZeroDivisionError as error:  # a WebUI",
        "contract/test_where_it_cannot_run.py",
    ),
    Mutation(
        "the strip of a source video marks frames that are not used",
        "animatediff/page/source_strip.py",
        "    is_used = frame in used.frames",
        "    is_used = frame >= used.start",
        "host/test_source_strip.py",
    ),
    Mutation(
        "a glance at a video decodes a frame beside the one that was asked for",
        "motion_module/video_file.py",
        "self.start + (index - 0.5) / self.fps - earlier",
        "self.start + (index + 0.5) / self.fps - earlier",
        "method/test_video_files.py",
    ),
    Mutation(
        "a model for another kind of checkpoint is not refused by its unit",
        "animatediff/controlnet/frames.py",
        "            self._require_models_by_name()\n",
        "",
        "contract/test_controlnet.py",
    ),
    Mutation(
        "each row has the hint of the next frame",
        "animatediff/controlnet/unet_calls.py",
        "    return layout.to_rows(numbers).tolist()",
        "    return ((layout.to_rows(numbers) + 1) % (numbers.max() + 1)).tolist()",
        "contract/test_controlnet.py",
    ),
    Mutation(
        "frames between keyframes are controlled by a black picture",
        "animatediff/controlnet/hints.py",
        "        if len(self._place) == self._frames:",
        "        if True:",
        "host/test_controlnet_hints.py",
    ),
    Mutation(
        "what ended ControlNet's preparation is swallowed",
        "animatediff/controlnet/preparation.py",
        "        if self.failure is not None:",
        "        if False:",
        "contract/test_controlnet.py",
    ),
    Mutation(
        "ControlNet stays in the UNet after an exception",
        "animatediff/controlnet/frame_control.py",
        "if self._script is not None and not completed and",
        "if False and self._script is not None and not completed and",
        "contract/test_controlnet.py",
    ),
    Mutation(
        "control models stay on the device after an error",
        "animatediff/controlnet/unet_calls.py",
        '                param.control_model.to("cpu")',
        "                pass",
        "contract/test_controlnet.py",
    ),
    Mutation(
        "kept maps are those of another ControlNet",
        "animatediff/controlnet/map_cache.py",
        "[self._version, made.name]",
        "[made.name]",
        "host/test_map_cache.py",
    ),
    Mutation(
        "detected maps are among the frames",
        "animatediff/controlnet/frames.py",
        "                return controls, hires_controls, []\n            require_fit",
        "                return controls, hires_controls, maps\n            require_fit",
        "contract/test_controlnet.py",
    ),
    Mutation(
        "an arc between prompts takes ControlNet's marks along",
        "animatediff/controlnet/marks.py",
        "    return int(bool((conditions[:, 0].abs() == MARK).all()))",
        "    return 0",
        "host/test_controlnet_hints.py",
    ),
    Mutation(
        "an IP-Adapter keeps the keys of its first call",
        "animatediff/controlnet/embeddings.py",
        "        call = (*frames, *(context[:, 0, 0] < 0).tolist())",
        "        call = 0",
        "host/test_controlnet_hints.py",
    ),
    Mutation(
        "motion layers stay attached",
        "motion_module/attach.py",
        "return block.register_forward_hook(animate).remove",
        "block.register_forward_hook(animate)\n    return lambda: None",
        "contract/test_cleanliness.py",
    ),
    Mutation(
        "SparseCtrl's layers mix pictures that are no clip",
        "animatediff/controlnet/sparse_ctrl_layers.py",
        "return RowLayout(1, rows)",
        "return RowLayout(rows, rows)",
        "host/test_import_paths.py",
    ),
    Mutation(
        "SparseCtrl's mask is empty",
        "motion_module/sparse_ctrl.py",
        "mask = torch.ones_like(shown[:, :1])",
        "mask = torch.zeros_like(shown[:, :1])",
        "method/test_sparse_ctrl_network.py",
    ),
    Mutation(
        "SparseCtrl's pictures are those of the window's own numbers",
        "motion_module/sparse_control.py",
        "layout.to_rows(picture_of[numbers])",
        "layout.to_rows(picture_of[torch.arange(layout.frames).expand_as(numbers)])",
        "method/test_sparse_ctrl_network.py",
    ),
    Mutation(
        "strengths of SparseCtrl are for frames of the window by their place in it",
        "motion_module/sparse_control.py",
        "torch.tensor(self.weights)[layout.numbers]",
        "torch.tensor(self.weights)[torch.arange(layout.frames).expand_as(layout.numbers)]",
        "method/test_sparse_ctrl_network.py::test_each_frame_has_its_own_strength",
    ),
    Mutation(
        "a SparseCtrl network in training sees all frames",
        "motion_module/training/trained_sparse_ctrl.py",
        "return torch.cat([latents * mask,",
        "return torch.cat([latents,",
        "method/training/test_train_sparse_ctrl.py::test_it_is_shown_the_latents_of_some_frames_and_zeros_for_others",
    ),
    Mutation(
        "a new SparseCtrl network has random weights",
        "motion_module/training/trained_sparse_ctrl.py",
        "names = {name: key for name, key in own_names(theirs).items() if name in own}",
        "names: dict[str, str] = {}",
        "method/training/test_train_sparse_ctrl.py::test_a_new_network_sees_latents_as_the_encoder_of_the_unet_does",
    ),
    Mutation(
        "a trained SparseCtrl network has the motion layers of another level",
        "motion_module/sparse_ctrl.py",
        'layers[f"down_{level}_{index}"][own]',
        'layers[f"down_{3 - int(level)}_{index}"][own]',
        "method/training/test_train_sparse_ctrl.py::test_a_trained_network_acts_the_same_in_training_and_generation",
    ),
    Mutation(
        "SparseCtrl adds to the skip connections in another order",
        "motion_module/sparse_control.py",
        "call.adding_to_skip(last - index)",
        "call.adding_to_skip(index)",
        "method/test_sparse_ctrl_network.py",
    ),
    Mutation(
        "SparseCtrl stays on the device",
        "motion_module/sparse_control.py",
        "            undo.callback(control.let_go)",
        "            pass",
        "method/test_sparse_ctrl_network.py",
    ),
    Mutation(
        "hires has SparseCtrl's pictures at the size of the first pass",
        "animatediff/job/sparse_control.py",
        "(p.hr_upscale_to_y // SIDE_OF_LATENT, p.hr_upscale_to_x // SIDE_OF_LATENT)",
        "(p.height // SIDE_OF_LATENT, p.width // SIDE_OF_LATENT)",
        "contract/test_sparse_ctrl.py::test_hires_has_pictures_of_its_own_size",
    ),
    Mutation(
        "pictures of SparseCtrl are for frames in their own order",
        "animatediff/request/frame_pictures.py",
        "next(waiting) if frame is None else frame for frame in said",
        "index if frame is None else frame for index, frame in enumerate(said)",
        "host/test_frame_pictures.py",
    ),
    Mutation(
        "ControlNet takes the Batch tab away",
        "animatediff/import_paths.py",
        '"animatediff_i2i_batch": batch_tab.make_clip',
        "",
        "host/test_import_paths.py",
    ),
    Mutation(
        "a sampler that takes steps without motion is a video",
        "animatediff/job/acting.py",
        "        if without:",
        "        if False:",
        "host/test_acting.py",
    ),
    Mutation(
        "a script that replaces sampling makes a video",
        "animatediff/job/job.py",
        "        if self.p.iteration not in self._sampled:",
        "        if False:",
        "contract/test_motion_is_in_every_frame.py",
    ),
    Mutation(
        "errors of others are called ours",
        "animatediff/errors.py",
        "        if not _is_ours(error.__traceback__):",
        "        if False:",
        "contract/test_failures.py",
    ),
    Mutation(
        "a wrapped block has no layer",
        "motion_module/attach.py",
        "    parts = list(block.modules())",
        "    parts = list(block.children())",
        "method/test_attach.py",
    ),
    Mutation(
        "a fault in decoding leaves its text",
        "animatediff/job/processing_hooks.py",
        "        _role_of(self).closed()",
        "        pass",
        "contract/test_failures.py",
    ),
    Mutation(
        "noise schedule stays lent",
        "animatediff/host/ldm.py",
        'with patched(model, "alphas_cumprod", model.alphas_cumprod), patched(model, "alphas_cumprod_original", own):\n',
        "model.alphas_cumprod_original = own\n    if True:\n",
        "contract/test_cleanliness.py",
    ),
    Mutation(
        "v1's norms stay over frames",
        "motion_module/attach.py",
        '    with patched(norm, "forward", forward):\n        yield',
        "    norm.forward = forward\n    yield",
        "contract/test_cleanliness.py",
    ),
    Mutation(
        "v1's norms are per frame",
        "motion_module/attach.py",
        'if family.unet_norms == "over frames":',
        "if False:",
        "method/test_attach.py",
    ),
    Mutation(
        "the beta's motion norms are per frame",
        "motion_module/network.py",
        "        if self.norm_over_frames:",
        "        if False:",
        "method/test_families.py",
    ),
    Mutation(
        "passes of wide layers take more memory",
        "motion_module/network.py",
        "CUDA_NUMBERS // (channels * frames)",
        "CUDA_NUMBERS // (320 * frames)",
        "method/test_clip_memory.py",
    ),
    Mutation(
        "frames that wait do so on the card",
        "motion_module/layer_offload.py",
        'torch.device("cpu")',
        "device",
        "method/test_clip_memory.py",
    ),
    Mutation(
        "added words make a keyframe a line like any other",
        "motion_module/added_words.py",
        "    if text == written or not keyframes:\n",
        "    if True:\n",
        "host/test_travel_of_rows.py",
    ),
    Mutation(
        "keyframes inside a line are not said",
        "motion_module/keyframe_lines.py",
        "for _, mark in inside[:1]",
        "for _, mark in inside[:0]",
        "method/test_keyframe_lines.py",
    ),
    Mutation(
        "a travel leaves SDXL's pooled vector alone",
        "animatediff/job/prompt_travel.py",
        "    mixed[:, of_text] = between(rows[:, of_text], travel.sources(), how)\n",
        "",
        "host/test_travel_of_rows.py",
    ),
    Mutation(
        "frames reversed on the way in",
        "motion_module/row_layout.py",
        "return x.reshape(-1, self.frames, *x.shape[1:])",
        "return x.reshape(-1, self.frames, *x.shape[1:]).flip(1)",
        "method/test_row_layout.py",
    ),
    Mutation(
        "two clips in every UNet call",
        "motion_module/row_layout.py",
        "return x.reshape(-1, self.frames, *x.shape[1:])",
        "return x.reshape(2, -1, *x.shape[1:])",
        "contract/test_prompts.py",
    ),
    Mutation(
        "parts joined by AND taken for frames",
        "motion_module/row_layout.py",
        "    if parts == 1 or rows == frames:",
        "    if True:",
        "contract/test_prompts.py",
    ),
    Mutation(
        "no positions",
        "motion_module/network.py",
        "return self.positional_encoding[:frames].to(dtype)",
        "return torch.zeros_like(self.positional_encoding[:frames]).to(dtype)",
        "method/test_network.py",
    ),
    Mutation(
        "img2img noised by the checkpoint's schedule",
        "animatediff/job/animated_model.py",
        "        with self._schedule():\n            yield",
        "        yield",
        "contract/test_generate.py",
    ),
    Mutation(
        "a refiner loaded into the changed model",
        "animatediff/host/ldm.py",
        "        with around():\n            return function",
        "        if True:\n            return function",
        "contract/test_generate.py",
    ),
    Mutation(
        "all videos of one seed",
        "animatediff/job/finished_frames.py",
        "row = iteration * self._params.video_length",
        "row = 0",
        "contract/test_generate.py",
    ),
    Mutation(
        "nothing in the infotext",
        "animatediff/job/job.py",
        "        p.extra_generation_params[infotext.KEY] = infotext.write(self.params, module_hash)\n",
        "",
        "contract/test_api.py",
    ),
    Mutation(
        "a refused request makes a picture",
        "animatediff/job/job.py",
        "    take(p, Refusal(p, error))",
        "    pass",
        "contract/test_refusals.py",
    ),
    Mutation(
        "copies of p take part in the job",
        "animatediff/job/job.py",
        "return role if isinstance(role, Job) and role.p is p else None",
        "return role if isinstance(role, Job) else None",
        "contract/test_cleanliness.py",
    ),
    Mutation(
        "settings for AND stay changed",
        "animatediff/job/job.py",
        "self._during_pass.enter_context(patched_items(shared.opts.data, wanted))",
        "shared.opts.data.update(wanted)",
        "contract/test_prompts.py",
    ),
    Mutation(
        "rounding of a GIF's delays not carried",
        "animatediff/video/pillow.py",
        "ends = [round(frame * 1000 / fps / unit) for frame in range(frames + 1)]",
        "ends = [frame * round(1000 / fps / unit) for frame in range(frames + 1)]",
        "host/test_video.py",
    ),
    Mutation(
        "half a file stays on a full disk",
        "animatediff/output/results.py",
        "            file.unlink(missing_ok=True)",
        "            pass",
        "contract/test_refusals.py",
    ),
    Mutation(
        "arguments of a LoRA's tag are dropped without a word",
        "animatediff/job/loras.py",
        "_without_effect(entry, entry.positional[POSITIONS:], READ) + _left_out(lora)",
        "_left_out(lora)",
        "contract/test_weight_files.py::test_arguments_without_effect_are_named",
    ),
    Mutation(
        "a clip of one window does not loop",
        "motion_module/context_windows.py",
        'return self.closed_loop == "many" and 1 < self.frames <= self.length',
        "return False",
        "contract/test_long_clips.py::test_a_clip_of_one_window_loops_with_as_many_unet_calls",
    ),
    Mutation(
        "galleries do not hear of animations",
        "animatediff/output/results.py",
        "            script_callbacks.image_saved_callback(self._file_facts(video.frames[0], path, video.infotexts[0]))\n",
        "",
        "contract/test_generate.py::test_other_extensions_hear_of_each_file_once",
    ),
    Mutation(
        "taken names are not noticed",
        "animatediff/output/paths.py",
        "lock_file.touch(exist_ok=False)",
        "lock_file.touch()",
        "contract/test_refusals.py",
    ),
    Mutation(
        "links lead to any file",
        "animatediff/output/signed_links.py",
        "if not hmac.compare_digest(key.encode(), _signature(file).encode()):",
        "if not key:",
        "contract/test_api.py",
    ),
    Mutation(
        "the preview decodes the whole clip",
        "animatediff/job/live_preview.py",
        "stride = max(2, -(-len(latents) // MOST_FRAMES))",
        "stride = 1",
        "contract/test_progress.py",
    ),
    Mutation(
        "a still's infotext leaves the panel on",
        "animatediff/request/infotext.py",
        'return False if field.name == "enable" else None',
        "return None",
        "host/test_params.py",
    ),
    Mutation(
        "motion scale has no effect",
        "motion_module/network.py",
        "            query = query * scale\n",
        "            query = query * 1.0\n",
        "method/test_motion_layers.py",
    ),
    Mutation(
        "a frame attends with the scale of its place in the window",
        "motion_module/row_layout.py",
        "        return values[self.frame_numbers.to(values.device)]",
        "        return values[: self.frames].expand(self.rows // self.frames, *values.shape[1:], self.frames)",
        "method/test_motion_per_frame.py",
    ),
    Mutation(
        "a schedule is not held before its first keyframe",
        "motion_module/frame_schedule.py",
        "numbers[one] + (numbers[other] - numbers[one]) * weight if weight else numbers[one]",
        "numbers[one] + (numbers[other] - numbers[one]) * weight if weight else numbers[other] * bool(weight)",
        "method/test_frame_schedule.py",
    ),
    Mutation(
        "frames have one CFG scale where the WebUI weighs parts",
        "animatediff/host/ldm.py",
        "parts = [[(row, weight * scale) for row, weight in of] for of, scale in zip(parts, scales)]",
        "parts = [[(row, weight * scales[0]) for row, weight in of] for of in parts]",
        "host/test_guidance_of_frames.py",
    ),
    Mutation(
        "a step without negative prompt is guided",
        "animatediff/host/unet_patcher.py",
        "if not math.isclose(cond_scale, 1.0):",
        "if True:",
        "host/test_guidance_of_frames.py",
    ),
    Mutation(
        "a motion LoRA by frame leaves windows out",
        "motion_module/network.py",
        'with patched(self, "frames_now", in_windows(self.frames_now)):',
        'with patched(self, "frames_now", self.frames_now[:, :length].repeat(len(frames), 1)):',
        "method/test_frame_loras.py",
    ),
    Mutation(
        "weights of units are those of the first frames",
        "animatediff/controlnet/unet_calls.py",
        "return self._weights[self._frames].view(-1, 1, 1, 1)",
        "return self._weights[: len(self._frames)].view(-1, 1, 1, 1)",
        "host/test_controlnet_hints.py",
    ),
    Mutation(
        "rules for single blocks are ignored",
        "motion_module/motion_strength.py",
        "for rule in self.rules:",
        "for rule in ():",
        "method/test_motion_layers.py",
    ),
    Mutation(
        "v1's norms stay over frames where the module is off",
        "motion_module/attach.py",
        "        if not motion.active:\n            return per_frame(x)\n",
        "",
        "contract/test_controls.py",
    ),
    Mutation(
        "a motion mask stays with the first frames of a clip",
        "motion_module/motion_mask.py",
        "layout.to_rows(layout.of_video(shares))",
        "layout.to_rows(shares[:layout.frames].expand(layout.rows // layout.frames, *shares[:layout.frames].shape))",
        "method/test_motion_mask.py",
    ),
    Mutation(
        "a motion mask of the hires pass has the size of the first",
        "animatediff/job/motion_masks.py",
        'if not getattr(p, "is_hr_pass", False):',
        "if True:",
        "host/test_fitted_motion_masks.py",
    ),
    Mutation(
        "a resumed clip does not know its motion mask",
        "animatediff/job/resuming.py",
        "masks, plan.motion_masks, of_sparse]",
        "masks, of_sparse]",
        "contract/test_resuming.py::test_another_motion_mask_does_not_resume",
    ),
    Mutation(
        "AnimateLCM-I2V adds its picture without showing it to motion layers",
        "motion_module/motion_layers.py",
        "block, x + shown, layout, scale)",
        "block, x, layout, scale)",
        "method/test_image_encoder.py",
    ),
    Mutation(
        "AnimateLCM-I2V counts no frames",
        "motion_module/image_encoder.py",
        "drift * positions[:, :, None, None]",
        "drift * positions[:1, :, None, None].expand(frames, -1, -1, -1)",
        "method/test_image_encoder.py",
    ),
    Mutation(
        "PIA's mask behind the picture",
        "motion_module/pia.py",
        "torch.cat([mask, latents], dim=1)",
        "torch.cat([latents, mask], dim=1)",
        "method/test_families.py",
    ),
    Mutation(
        "diffusers' two attentions mistaken for each other",
        "motion_module/key_layouts.py",
        '("attention_blocks.0.", "attn1."),\n    ("attention_blocks.1.", "attn2."),',
        '("attention_blocks.0.", "attn2."),\n    ("attention_blocks.1.", "attn1."),',
        "method/test_convert.py",
    ),
    Mutation(
        "alpha of a LoRA is ignored",
        "motion_module/lora.py",
        "return float(alpha) / rank if alpha.numel() == 1 else math.nan",
        "return 1.0",
        "method/test_lora.py",
    ),
    Mutation(
        "a motion LoRA stays merged",
        "motion_module/weight_patches.py",
        'undo.enter_context(patched(linear, "weight", nn.Parameter(weight, requires_grad=False)))',
        "linear.weight = nn.Parameter(weight, requires_grad=False)",
        "method/test_lora.py",
    ),
    Mutation(
        "an assumed family is not in the infotext",
        "animatediff/request/plan.py",
        "family=AS_FOUND if is_certain else family.key",
        "family=AS_FOUND",
        "contract/test_sampling.py::test_a_family_can_be_overridden_and_is_in_the_infotext",
    ),
    Mutation(
        "training: the base learns too",
        "motion_module/training/loop.py",
        "optimizer = torch.optim.AdamW(learning,",
        "learning += self.model.unet.requires_grad_(True).parameters()\n        optimizer = torch.optim.AdamW(learning,",
        "method/training/test_learning.py",
    ),
    Mutation(
        "training: no caption is left out",
        "motion_module/training/loop.py",
        "draw) < config.caption_dropout",
        "draw) < 0",
        "method/training/test_learning.py",
    ),
    Mutation(
        "training: another timestep for each frame",
        "motion_module/training/loop.py",
        "alphas = self.alphas[batch.times].view(-1, 1, 1, 1, 1)",
        "times = (batch.times[:, None] + torch.arange(self.config.frames)) % 1000\n"
        "        alphas = self.alphas[times].view(*times.shape, 1, 1, 1)",
        "method/training/test_learning.py",
    ),
    Mutation(
        "training: what is gone on from has another order",
        "motion_module/training/loop.py",
        "chosen = [self.examples[number] for number in self.order.at(index)]",
        "self._seen = getattr(self, '_seen', -1) + 1\n"
        "        chosen = [self.examples[number] for number in self.order.at(self._seen)]",
        "method/training/test_resume_training.py",
    ),
    Mutation(
        "training: the last weights are written, not their mean",
        "motion_module/training/loop.py",
        "        mean = self.averaged.module.state_dict()\n",
        "        mean = self.animated.learning.state_dict()\n",
        "method/training",
    ),
    Mutation(
        "training: a full disk takes the state with it",
        "motion_module/training/latent_cache.py",
        "        yield part\n",
        "        file.unlink(missing_ok=True)\n        yield part\n",
        "method/training/test_faults.py",
    ),
    Mutation(
        "training: a loss that is no number goes on",
        "motion_module/training/loop.py",
        "        if not math.isfinite(mean):",
        "        if False:",
        "method/training/test_faults.py",
    ),
    Mutation(
        "training: noise is learned on a base that predicts v",
        "motion_module/training/loop.py",
        'if self.model.predicts == "v":\n            wanted',
        "if False:\n            wanted",
        "method/training/test_bases.py",
    ),
    Mutation(
        "training: keys of a base are taken as they are",
        "motion_module/checkpoint_keys.py",
        "_renamed(key, _SD_2_TURBO if turbo else _SD_1): key",
        "key: key",
        "method/training/test_bases.py",
    ),
    Mutation(
        "training: a refused one takes a folder that was there before",
        "motion_module/training/command.py",
        "if is_new and folder",
        "if folder",
        "method/training/test_bases.py",
    ),
    Mutation(
        "training: a refused one leaves its folder",
        "motion_module/training/command.py",
        "shutil.rmtree(folder, ignore_errors=True)",
        "pass",
        "method/training/test_bases.py",
    ),
    Mutation(
        "files: one that cannot be described hides the others",
        "animatediff/api.py",
        "except Exception:  # one file must not hide the others",
        "except ZeroDivisionError:",
        "host/test_models_route.py",
    ),
    Mutation(
        "files: infinite weights are loaded",
        "motion_module/weight_files.py",
        "(math.isfinite(tensor.amax()) and math.isfinite(tensor.amin()))",
        "math.isfinite(tensor.amax())",
        "method/test_strange_files.py",
    ),
    Mutation(
        "files: an unforeseen error leaves the reader as it is",
        "motion_module/weight_files.py",
        "except Exception as error:  # whatever else",
        "except ZeroDivisionError as error:  # whatever else",
        "method/test_strange_files.py",
    ),
    Mutation(
        "files: a call with anything is taken for a tensor",
        "motion_module/pickled_tensors.py",
        "if not isinstance(call.arguments, tuple):",
        "if False:",
        "method/test_strange_files.py",
    ),
    Mutation(
        "files: a tensor keeps the whole span that it is spread over",
        "motion_module/weight_files.py",
        "strided.clone() if tensor.nbytes < size else strided",
        "strided",
        "method/test_strange_files.py",
    ),
    Mutation(
        "files: a shared storage is checked for each tensor",
        "motion_module/weight_files.py",
        "if storage not in self._checked:",
        "if True:",
        "method/test_strange_files.py",
    ),
    Mutation(
        "files: a pickle has no end",
        "motion_module/pickle_reader.py",
        "MOST_OPERATIONS = 600_000",
        "MOST_OPERATIONS = 600_000_000",
        "method/test_strange_files.py",
    ),
    Mutation(
        "files: whole numbers are taken for weights",
        "motion_module/checkpoint.py",
        "if not entries[key].dtype.is_floating_point}",
        "if False}",
        "method/test_strange_files.py",
    ),
    Mutation(
        "the small world: trainings see what is kept from them",
        "demo/world/scenes.py",
        "return [scene for scene in scenes(motions) if not scene.held_out]",
        "return scenes(motions)",
        "method/test_small_world.py",
    ),
    Mutation(
        "cut off: the results of another model are used",
        "motion_module/unet_cache.py",
        "if cached is None or not _alike(cached, result):",
        "if cached is None:",
        "method/test_unet_cache.py",
    ),
    Mutation(
        "cut off: pictures of img2img begin with other noise each time",
        "animatediff/job/resuming.py",
        "if self._takes_long or part_of(self._p) else nullcontext()",
        "if False else nullcontext()",
        "contract/test_resuming.py::test_img2img_resumes_after_an_error",
    ),
    Mutation(
        "img2img: a picture stays what it is only in the first step",
        "motion_module/init_frames.py",
        "return (progress + 1e-6 >= 1 - shares) & (shares > 0)",
        "return (progress > 0) | (shares == 1)",
        "method/test_init_frames.py",
    ),
    Mutation(
        "img2img: a video ends with its first picture",
        "animatediff/job/init_frames.py",
        "init_frames.between(self._first, self._last, frames)",
        "init_frames.between(self._first, self._first, frames)",
        "contract/test_first_and_last_frame.py::test_a_video_ends_with_the_last_frame",
    ),
    Mutation(
        "the first frame of a window counts as that of the clip",
        "motion_module/self_attention.py",
        "if numbers is None else self._first_of_windows(attention, clips, numbers)",
        "if True else clips[:, 0]",
        "method/test_first_frame_attention.py",
    ),
    Mutation(
        "layers have all rows at once",
        "motion_module/layer_offload.py",
        "at_once = len(x) if _has_others_functions(layer) or any(map(_gives_functions, args)) else rows",
        "at_once = len(x)",
        "method/test_layer_offload.py",
    ),
    Mutation(
        "numbers have no upper bound",
        "animatediff/request/values.py",
        "if option.maximum is not None and number > option.maximum:",
        "if False:",
        "host/test_values.py",
    ),
    Mutation(
        "words for off are refused",
        "animatediff/request/values.py",
        "(word in OFF_WORDS or is_unknown)",
        "is_unknown",
        "host/test_values.py",
    ),
    Mutation(
        "Pillow may use any decoder",
        "animatediff/request/base64_pictures.py",
        ", formats=PICTURE_FORMATS)",
        ")",
        "host/test_values.py",
    ),
    Mutation(
        "values without effect are accepted without a word",
        "animatediff/job/without_effect.py",
        "if not _has_effect(field, plan)]",
        "if False]",
        "contract/test_requests.py::test_every_value_without_effect_gets_a_sentence",
    ),
    Mutation(
        "a source may lie anywhere",
        "animatediff/request/source_video.py",
        "if path is None or not (uploads.holds(path) or any(map(path.is_relative_to, folders))):",
        "if path is None:",
        "contract/test_source.py",
    ),
    Mutation(
        "what was never uploaded is an upload",
        "animatediff/page/upload_controls.py",
        "    if not uploads.holds(name):",
        "    if False:",
        "host/test_what_a_page_may_reach.py",
    ),
    Mutation(
        "the transparency of masks is ignored",
        "animatediff/request/masks.py",
        "        if by_alpha:",
        "        if False:",
        "host/test_mask_files.py",
    ),
    Mutation(
        "inverted masks cover together what all of them cover",
        "animatediff/request/masks.py",
        "ImageChops.darker if inverted else ImageChops.lighter",
        "ImageChops.lighter",
        "host/test_mask_files.py",
    ),
    Mutation(
        "whatever lies beneath the folder of uploads is an upload",
        "animatediff/request/uploads.py",
        "return Path(file).resolve().parent.parent == _folder()",
        "return Path(file).resolve().is_relative_to(_folder())",
        "host/test_source_video.py",
    ),
    Mutation(
        "ffmpeg decides what a file is",
        "motion_module/video_file.py",
        '        raise UnreadableVideo("its content is not that of a video. Choose another file")\n',
        '        return ["-i", f"file:{file}"]\n',
        "host/test_what_a_page_may_reach.py",
    ),
    Mutation(
        "any picture is decoded",
        "animatediff/page/upload_controls.py",
        '            return decoded(self.label or "The picture", picture_in_base64(x))\n',
        "            return super().preprocess(x)\n",
        "host/test_what_a_page_may_reach.py",
    ),
    Mutation(
        "the routes are open to those who have not logged in",
        "animatediff/api.py",
        "    if not (passwords or logins):",
        "    if not passwords:",
        "host/test_what_a_page_may_reach.py",
    ),
    Mutation(
        "trainings of others read any folder",
        "animatediff/page/train_page.py",
        "or not _others_can_start_trainings()",
        "or True",
        "host/test_what_a_page_may_reach.py",
    ),
    Mutation(
        "the end of a refused training deletes the next one",
        "animatediff/page/training_processes.py",
        "if STARTED[self.folder] is not process:",
        "if False:",
        "host/test_training_processes.py",
    ),
    Mutation(
        "several trainings run at a time",
        "animatediff/page/training_processes.py",
        "            if other._is_running():",
        "            if False:",
        "host/test_training_processes.py",
    ),
    Mutation(
        "a video that is cut off is taken for a shorter one",
        "motion_module/video_file.py",
        "elif CUT_OFF.search(process.messages) or self._is_short:",
        "elif False:",
        "method/test_video_files.py",
    ),
    Mutation(
        "a refusal does not say what to do",
        "animatediff/request/plan.py",
        " frames. Give fewer.",
        " frames.",
        "host/test_user_texts.py",
    ),
    Mutation(
        "ffmpeg may be stuck for ever",
        "motion_module/time_limit.py",
        "if monotonic() - since > seconds:",
        "if False:",
        "method/test_video_files.py",
    ),
    Mutation(
        "ffmpeg answers for who reads slowly",
        "motion_module/time_limit.py",
        "            self._waits = None\n",
        "            pass\n",
        "method/test_video_files.py",
    ),
    Mutation(
        "the rate of a video that varies is kept",
        "motion_module/video_file.py",
        'constant = f"fps={fps}:start_time={self.start:f},{chosen}setpts=N"',
        'constant = f"{chosen}setpts=N"',
        "method/test_video_files.py",
    ),
    Mutation(
        "damage behind the frames that are used is an error",
        "motion_module/video_file.py",
        "DAMAGED.search(messages, 0, *ends[:1])",
        "DAMAGED.search(messages)",
        "method/test_video_files.py",
    ),
    Mutation(
        "paths to other computers are looked at",
        "animatediff/request/network_paths.py",
        'return names_host[1].casefold() if names_host else ""',
        'return ""',
        "host/test_source_video.py",
    ),
    Mutation(
        "the transparency of a mask is lost",
        "animatediff/page/batch_tab.py",
        "p.image_mask = _picture(masks[0])",
        "p.image_mask = flattened(_picture(masks[0]), background())",
        "host/test_batch_tab.py",
    ),
    Mutation(
        "motion layers compute in single precision whatever the UNet's",
        "motion_module/motion_layers.py",
        RESIDUAL,
        RESIDUAL.replace("x.dtype", "torch.float32") + ".to(x)",
        "contract/test_half_precision.py::test_no_tensor_has_another_dtype_or_device",
    ),
    Mutation(
        "motion layers compute in bfloat16 whatever the UNet's precision",
        "motion_module/motion_layers.py",
        RESIDUAL,
        RESIDUAL.replace("x.dtype", "torch.bfloat16") + ".to(x)",
        "contract/test_half_precision.py::test_a_clip_is_as_near_to_single_precision_as_plain_pictures",
    ),
    Mutation(
        "a mask makes what motion layers add a tensor of single precision",
        "motion_module/motion_mask.py",
        "self._by_size[size].to(x)",
        "self._by_size[size].to(x.device)",
        "contract/test_half_precision.py",
    ),
    Mutation(
        "motion effects of frames make what motion layers add a tensor of single precision",
        "motion_module/motion_layers.py",
        "return (factor * x).to(x.dtype)",
        "return factor * x",
        "contract/test_half_precision.py",
    ),
    Mutation(
        "SparseCtrl's pictures stay in single precision",
        "motion_module/sparse_control.py",
        "self.pictures_of(*x.shape[2:]).to(x.device, x.dtype)",
        "self.pictures_of(*x.shape[2:]).to(x.device)",
        "contract/test_half_precision.py",
    ),
)


def main() -> int:
    options = read_options()
    mutations = [mutation for mutation in MUTATIONS if options.name in mutation.name]
    if not mutations:
        sys.exit(f"There is no mutation {options.name!r}.")
    if options.list:
        print(*(f"{mutation.name} | {mutation.file} | {mutation.tests}" for mutation in mutations), sep="\n")
        return 0
    with ThreadPoolExecutor(options.jobs) as pool:
        tests = sorted({mutation.tests for mutation in mutations})
        if failures := list(filter(None, pool.map(failure_of, tests))):
            sys.exit("Without any fault these fail already:\n" + "\n".join(failures))
        return not all(list(pool.map(is_seen, mutations)))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "name", nargs="?", default="", metavar="PART_OF_A_NAME", help="only the faults whose names have this part"
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many faults are tried at once")
    parser.add_argument("--list", action="store_true", help="name the faults and their tests, and run nothing")
    return parser.parse_args()


def tree() -> list[str]:
    """The project's files, also those that are not committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def is_seen(mutation: Mutation) -> bool:
    """Whether a test fails on a copy of the tree that has the fault."""
    failed = failure_of(mutation.tests, mutation)
    print(f"{'seen' if failed else 'NOT SEEN'}: {mutation.name} {failed[:160]}", flush=True)
    return bool(failed)


def failure_of(tests: str, mutation: Mutation | None = None) -> str:
    """The first test that fails on a copy of the tree, mutated or not; empty where none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ROOT.name
        for name in tree():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
        if mutation:
            file = copy / mutation.file
            text = file.read_text()
            assert text.count(mutation.old) == 1, f"{mutation.name}: the code to change is not in {mutation.file} once"
            file.write_text(text.replace(mutation.old, mutation.new))
        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, f"tests/{tests}"]
        run = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return next((line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")


if __name__ == "__main__":
    sys.exit(main())
