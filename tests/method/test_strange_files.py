"""Files that are not what they seem: each is named for what it is, in bounded time and memory."""

import collections
import json
import pickle
import pickletools
import random
import resource
import time
import zipfile
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from motion_module.checkpoint import TRAINING, describe, load
from motion_module.lora import load_lora
from motion_module.pickle_reader import Call, Name, UnreadablePickle, read_pickle
from motion_module.weight_files import LARGEST_HEADER, CheckpointError, open_weights
from support.published_layouts import module_weights
from support.strange_files import HEADERS, NORM, PICKLES, STARTS, WEIGHTS, write_pickle, write_strange_files

PROJECTION = "down_blocks.1.motion_modules.0.temporal_transformer.proj_in.weight"


def problem(path):
    with pytest.raises(CheckpointError) as caught:
        describe(path).require_motion_module()
    return str(caught.value)


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    return folder, write_strange_files(folder)


@pytest.mark.parametrize("name", [*STARTS, *PICKLES, *HEADERS, *WEIGHTS])
def test_a_strange_file_is_named_for_what_it_is(strange, name):
    folder, said = strange
    before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = problem(folder / name)
    assert time.process_time() - before < 3  # under one where nothing else runs
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kilobytes
    assert text.startswith(name) and said[name] in text and text.endswith(".")


def test_a_file_is_read_for_what_it_contains(tmp_path):
    weights = module_weights("v3")
    save_file(weights, tmp_path / "a.ckpt")
    torch.save(weights, tmp_path / "b.safetensors")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "c.ckpt", _use_new_zipfile_serialization=False)
    containers = {}
    for name in ("a.ckpt", "b.safetensors", "c.ckpt"):
        description, _ = load(tmp_path / name)
        containers[description.container] = description.family.key
        file = open_weights(tmp_path / name)
        assert all(torch.equal(file.read(key), tensor) for key, tensor in weights.items())
    assert containers == {"safetensors": "v3", "PyTorch zip": "v3", "PyTorch before 1.6": "v3"}


def test_a_safetensors_file_may_begin_like_another_by_chance(tmp_path):
    """Its first bytes are the length of its header, which the library pads to a multiple of eight, and others do not."""
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for begin in (b"MZ", b"BM", b"\x1f\x8b", b"\xff\xd8"):
        padded = int.from_bytes(begin, "little")
        header = content[8 : 8 + length].ljust(padded)
        (tmp_path / "m.safetensors").write_bytes(padded.to_bytes(8, "little") + header + content[8 + length :])
        assert torch.equal(open_weights(tmp_path / "m.safetensors").read("a"), torch.zeros(2))


def test_a_file_of_old_pytorch_that_ends_early_is_damaged(tmp_path):
    torch.save(module_weights("v3"), tmp_path / "m.ckpt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "m.ckpt").read_bytes()
    for share in (0.001, 0.3, 0.9):
        (tmp_path / "m.ckpt").write_bytes(content[: int(share * len(content))])
        assert "m.ckpt is damaged: " in problem(tmp_path / "m.ckpt")


def test_the_directory_of_a_zip_file_is_bounded(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.ckpt", "w") as archive:
        for number in range(140):  # few long names take as much as many short ones
            archive.writestr(f"{number}" + 60_000 * "a", b"")
    assert f"its directory has {140 * (46 + 60_000) + 10 + 180 + 120:,} bytes" in problem(tmp_path / "m.ckpt")
    assert LARGEST_HEADER < 140 * 60_000


def test_numbers_of_the_other_byte_order_are_refused(tmp_path):
    write_pickle(tmp_path / "m.ckpt", b"}.", byteorder=b"big")
    assert problem(tmp_path / "m.ckpt").startswith("m.ckpt was written on a big-endian machine. ")


def test_a_storage_that_is_shorter_than_the_directory_says_is_damaged(tmp_path):
    torch.save({"a": torch.zeros(64)}, tmp_path / "m.ckpt")
    content = (tmp_path / "m.ckpt").read_bytes()
    name = content.rindex(b"data/0")  # in the directory, where the size precedes the name by fewer bytes than its own 46
    entry = content.rindex(b"PK\x01\x02", 0, name)
    changed = bytearray(content)
    changed[entry + 16 : entry + 24] = zlib.crc32(bytes(16)).to_bytes(4, "little") + (16).to_bytes(4, "little")
    (tmp_path / "m.ckpt").write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"m\.ckpt is damaged: the data of a cannot be read"):
        open_weights(tmp_path / "m.ckpt").read("a")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"constants.pkl": b"}."}, "is a TorchScript program"),
        ({"other/data.pkl": b"}."}, "is a zip file, but not one of PyTorch"),
    ],
)
def test_another_zip_file_is_named(tmp_path, members, said):
    write_pickle(tmp_path / "m.ckpt", b"}.", **members)
    assert problem(tmp_path / "m.ckpt").startswith(f"m.ckpt {said}")


def test_a_tensor_that_is_expanded_is_larger_than_its_data(tmp_path):
    torch.save({PROJECTION: torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "m.ckpt")
    assert f"{PROJECTION} is larger than its data" in problem(tmp_path / "m.ckpt")


def test_a_tensor_without_elements_is_read(tmp_path):
    torch.save({"a": torch.zeros(0, 3)}, tmp_path / "m.ckpt")
    assert open_weights(tmp_path / "m.ckpt").read("a").shape == (0, 3)


def test_damaged_files_raise_no_other_errors(tmp_path):
    """Changes one byte of the part of a file that describes it, some hundred times."""
    weights, draw = {"a.weight": torch.zeros(2, 2), "b": torch.ones(3, dtype=torch.int64)}, random.Random(7)
    save_file(weights, tmp_path / "m.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "m.ckpt")
    torch.save(weights, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    refused = 0
    for name in ("m.safetensors", "m.ckpt", "m.pt"):
        content = (tmp_path / name).read_bytes()
        for _ in range(150):
            changed = bytearray(content)
            changed[draw.randrange(len(content))] = draw.randrange(256)
            (tmp_path / name).write_bytes(changed)
            refused += not read_whole(tmp_path / name)
    assert refused > 150


def changes(value, others):
    """Yields a JSON value with each of its parts replaced by each of the others."""
    yield from others
    for place in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for other in changes(value[place], others):
            changed = value.copy()
            changed[place] = other
            yield changed


def test_strange_headers_raise_no_other_errors(tmp_path):
    """Replaces each value of a header by values of all types."""
    facts = {"noise_schedule": {"straight_in": "betas", "first": 0.1, "last": 0.2, "steps": 1000}, "frames": 8}
    tensor = {"dtype": "F32", "shape": [2, 0], "data_offsets": [0, 0]}
    others = [None, True, -1, 2**62, 2**64 - 1, 10**400, 0.5, "", [], [0] * 70, {}, {"F32": None}, ["F32", [0], [0, 0]]]
    headers = list(changes({"__metadata__": {"a": "b"}, NORM: tensor}, others))
    headers += [{"__metadata__": {TRAINING: json.dumps(changed)}, NORM: tensor} for changed in changes(facts, others)]
    described = 0
    for header in headers:
        text = json.dumps(header).encode()
        (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        described += read_whole(tmp_path / "m.safetensors")
    assert len(headers) == 234 and described > 50  # an older safetensors may refuse others


def test_strange_calls_raise_no_other_errors(tmp_path):
    """Calls what makes tensors with values of all types, and with the right arguments but for one."""
    key, target = b"X\x01\x00\x00\x00", b"ctorch._utils\n_rebuild_"
    storage = b"(" + key + b"sctorch\nFloatStorage\n" + key + b"0" + key + b"cK\x00tQ"
    right = [storage, b"K\x00", b"K\x02\x85", b"K\x01\x85", b"\x89", b"}", b"ctorch\nfloat32\n"]
    tensor = target + b"tensor_v2\n(" + b"".join(right[:6]) + b"tR"
    strange = [
        *(b"N", b"K\x05", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\x00", b"G" + b"\x7f\xf8" + bytes(6), b"C\x00"),
        *(b"]", b"}", b")", b"}" + key + b"bNs", b"(" + b"K\x00" * 9 + b"t", b"NQ", storage, tensor, key + b"a"),
    ]  # fmt: skip
    calls = []
    for name, arguments in (("tensor_v2", right[:6]), ("tensor_v3", right), ("parameter", [tensor, b"\x89", b"}"])):
        several = [[*arguments[:n], other, *arguments[n + 1 :]] for n in range(len(arguments)) for other in strange]
        several += [arguments[:n] for n in range(len(arguments) + 1)]
        tuples = [b"(" + b"".join(made) + b"t" for made in several]
        calls += [target + name.encode() + b"\n" + made + b"R" for made in (*strange, *tuples)]
    described = 0
    for call in calls:
        write_pickle(tmp_path / "m.ckpt", b"}" + key + b"a" + call + b"s.", **{"data/0": bytes(8)})
        described += read_whole(tmp_path / "m.ckpt")
    assert (len(calls), described) == (304, 115)


def read_whole(path):
    """Describes a file and reads its tensors; returns whether that was possible. Only CheckpointError is foreseen."""
    try:
        describe(path)
        file = open_weights(path)
        assert all(file.read(key).shape == entry.shape for key, entry in file.entries.items())
    except CheckpointError as error:
        assert "object at 0x" not in str(error)
        return False
    return True


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_weights_that_are_not_numbers_are_named(tmp_path, value, dtype):
    weights = module_weights("v3")
    weights[PROJECTION][5, 7] = value
    save_file({key: tensor.to(dtype) for key, tensor in weights.items()}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=rf"m\.safetensors cannot be used: {PROJECTION} contains values that are not"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"up": torch.full((32, 4), float("nan"))}, "contains values that are not numbers"),
        ({"up": torch.ones(32, 4, dtype=torch.int8)}, "has whole numbers"),
        ({"down": torch.zeros(0, 32), "up": torch.zeros(32, 0)}, "does not fit"),
        ({"alpha": torch.ones(2)}, "is not a number"),
        ({"alpha": torch.tensor(float("nan"))}, "is not a number"),
    ],
)
def test_a_lora_that_is_no_lora_is_named(tmp_path, change, said):
    name = "lora_unet_down_blocks_0_motion_modules_0_temporal_transformer_transformer_blocks_0_attention_blocks_0_to_q"
    parts = {"down": torch.ones(4, 32), "up": torch.ones(32, 4), "alpha": torch.tensor(4.0), **change}
    keys = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"}
    save_file({f"{name}.{keys[part]}": tensor for part, tensor in parts.items()}, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=rf"l\.safetensors .*{said}"):
        load_lora(tmp_path / "l.safetensors")


@pytest.mark.parametrize(
    "length", ["[" * 99_999, '{"_class_name": "MotionAdapter", "motion_max_seq_length": 1e999}', "-5", '"a"']
)
def test_a_strange_config_is_not_used(tmp_path, length):
    if length[0] not in "[{":
        length = json.dumps({"_class_name": "MotionAdapter", "motion_max_seq_length": json.loads(length)})
    (tmp_path / "config.json").write_text(length)
    weights = {key.replace("temporal_transformer.", ""): value for key, value in module_weights("lcm").items()}
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    assert describe(tmp_path / "diffusion_pytorch_model.safetensors").length in (32, 64)


def test_facts_with_impossible_numbers_are_not_used(tmp_path):
    facts = {"noise_schedule": {"straight_in": "betas", "first": 10**400, "last": 1, "steps": 1000}, "frames": 8}
    save_file(module_weights("v3"), tmp_path / "m.safetensors", {"animatediff_training": json.dumps(facts)})
    assert describe(tmp_path / "m.safetensors").family.frames == 16


# --- what a pickle says ---


def test_facts_of_lightning_and_numpy_are_read_as_names(tmp_path):
    """The official checkpoints have them. Python's own unpickler needs pytorch_lightning for such a file."""
    weights = {"a": torch.arange(6.0).reshape(2, 3)}
    name = "pytorch_lightning.callbacks.model_checkpoint"
    content = {
        "callbacks": {"ModelCheckpoint": {"best_model_score": np.float32(0.25), "monitor": "val/loss"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "state_dict": collections.OrderedDict(weights),
    }
    torch.save(content, tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as source, zipfile.ZipFile(tmp_path / "official.ckpt", "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):  # the key is the class itself
                key = b"X\x0f\x00\x00\x00ModelCheckpoint"
                assert data.count(key) == 1
                data = data.replace(key, f"c{name}\nModelCheckpoint\n".encode())
            target.writestr(item.filename, data)
    file = open_weights(tmp_path / "official.ckpt")
    assert list(file.entries) == ["a"] and torch.equal(file.read("a"), weights["a"])


def test_what_a_pickle_calls_is_written_down():
    content = read_pickle(pickle.dumps({"a": [1, -2, 2**70, 0.5, "ä", b"b", None, True, (3,)], 5: 6}), ()).content
    assert content == {"a": [1, -2, 2**70, 0.5, "ä", b"b", None, True, (3,)]}
    array = pickle.dumps(np.float64(2.5), protocol=2)
    names = {Name(*argument.split(" ")) for operation, argument, _ in pickletools.genops(array) if operation.name == "GLOBAL"}
    call = read_pickle(array, names).content
    assert isinstance(call, Call) and call.target.name == "scalar"


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x02", b"0.", b"t.", b"h\x05.", b"R.", b"X\x05\x00\x00\x00a.", b"}(Nu.", b"cos"]
)
def test_an_incomplete_pickle_is_unreadable(data):
    with pytest.raises(UnreadablePickle):
        read_pickle(data, ())


def test_bits_are_those_of_the_file(tmp_path):
    """Shared storages, offsets and strides, in both formats of PyTorch."""
    whole = torch.arange(24.0)
    weights = {"a": whole[4:10].view(2, 3), "b": whole.view(4, 6).T, "c": whole[3], "d": whole.half()}
    for new in (True, False):
        torch.save(weights, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
        file = open_weights(tmp_path / "m.pt")
        assert all(torch.equal(file.read(key), tensor) for key, tensor in weights.items())
    save_file({"a": whole}, tmp_path / "m.safetensors")
    assert torch.equal(open_weights(tmp_path / "m.safetensors").read("a"), load_file(tmp_path / "m.safetensors")["a"])


@pytest.mark.parametrize("new", [True, False])
def test_only_the_part_of_a_storage_that_a_tensor_takes_is_read(tmp_path, monkeypatch, new):
    whole = torch.arange(100_000.0)
    weights = {f"{n}": whole[1000 * n : 1000 * n + 1000].view(20, 50) for n in range(100)}
    weights |= {"sparse": whole[7::100], "turned": whole[:600].view(20, 30).T}
    torch.save(weights, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    file, read, sizes = open_weights(tmp_path / "m.pt"), zipfile.ZipExtFile.read, []

    def counted(member, size=-1):
        sizes.append(len(data := read(member, size)))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    for key, tensor in weights.items():
        assert torch.equal(file.read(key), tensor)
        assert file.read(key).untyped_storage().nbytes() == 4 * tensor.numel()
    assert sum(sizes) == (400_000 if new else 0)  # once, for its checksum


def test_the_checksum_of_a_storage_is_that_of_all_its_tensors(tmp_path):
    whole = torch.arange(1000.0)
    torch.save({"a": whole[:500], "b": whole[500:]}, tmp_path / "m.pt")
    content = bytearray((tmp_path / "m.pt").read_bytes())
    content[content.index(whole.numpy().tobytes()) + 3999] ^= 1
    (tmp_path / "m.pt").write_bytes(content)
    file = open_weights(tmp_path / "m.pt")
    for key in "abab":
        with pytest.raises(CheckpointError, match=rf"m\.pt is damaged: the data of {key} cannot be read"):
            file.read(key)


def test_a_part_of_a_storage_that_is_shorter_than_the_directory_says_is_damaged(tmp_path):
    whole = torch.arange(1000.0)
    torch.save({"a": whole[:10]}, tmp_path / "m.ckpt")
    content = bytearray((tmp_path / "m.ckpt").read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/0"))
    data = whole.numpy().tobytes()[:16]
    content[entry + 16 : entry + 24] = zlib.crc32(data).to_bytes(4, "little") + (16).to_bytes(4, "little")
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.ckpt is damaged: the data of a cannot be read"):
        open_weights(tmp_path / "m.ckpt").read("a")


def test_a_storage_that_begins_before_the_file_is_damaged(tmp_path):
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((Nctorch\nFloatStorage\nX\x01\x00\x00\x000tQK\x00K\x02\x85K\x01\x85\x89}tR"
    write_pickle(tmp_path / "m.ckpt", b"}X\x01\x00\x00\x00a" + tensor + b"s.", **{"data/0": bytes(8)})
    content = bytearray((tmp_path / "m.ckpt").read_bytes())
    first = content.index(b"PK\x01\x02")
    content[first + 42 : first + 46] = (10).to_bytes(4, "little")
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = bytes(4)
    content[-6:-2] = (first + 10).to_bytes(4, "little")  # so that 10 is subtracted from both
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.ckpt is damaged: the data of a cannot be read"):
        open_weights(tmp_path / "m.ckpt").read("a")
