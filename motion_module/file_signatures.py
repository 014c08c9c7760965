"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEAD = 4096
"""The bytes that are looked at."""


@dataclass(frozen=True)
class Contents:
    """What a file contains, in words; and what to do if that is not weights.

    `picture`, `video`: Pillow's name of the format, or ffmpeg's name of the container, if pictures or videos of this kind are
    read.
    """

    what: str
    advice: str = "Get the file as .safetensors."
    picture: str = ""
    video: str = ""


SAFETENSORS = Contents("safetensors")
ZIP = Contents("zip")
OLD_PYTORCH = Contents("PyTorch before 1.6")

AGAIN = "Download it again."
EMPTY = Contents("empty", AGAIN)
ZEROS = Contents("nothing but zeros, as after an interrupted download", AGAIN)
WEB_PAGE = Contents(
    "a web page, not weights: the server answered the download with a page, such as one for logging in",
    "Download the file itself, with the page's own download button.",
)
ANSWER = Contents(
    "text, not weights: the server answered the download with a message", "Check the address, and download it again."
)
LFS_POINTER = Contents(
    "a Git LFS pointer: a short text in place of the weights",
    "Download the real file, with `git lfs pull` or from the repository's page.",
)
ANNEX_POINTER = Contents("a git-annex pointer: a short text in place of the weights", "Get the real file with `git annex get`.")
OTHER_PROGRAM = "Download it again, or delete it."

_MOV = Contents("an MP4 or MOV video", OTHER_PROGRAM, video="mov")
_TIFF = Contents("a TIFF picture", OTHER_PROGRAM, picture="TIFF")
_SIGNATURES = (
    (0, b"PK\x03\x04", ZIP),
    (0, b"PK\x05\x06", Contents("an empty zip file", AGAIN)),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", OLD_PYTORCH),
    (0, b"version https://git-lfs.github.com/", LFS_POINTER),
    (0, b"/annex/objects/", ANNEX_POINTER),
    (0, b"GGUF", Contents("a GGUF file, which is quantised for other programs")),
    (0, b"\x93NUMPY", Contents("a NumPy array")),
    (0, b"\x89HDF\r\n\x1a\n", Contents("an HDF5 file, such as Keras writes")),
    (0, b"\x89PNG", Contents("a PNG picture", OTHER_PROGRAM, picture="PNG")),
    (0, b"GIF8", Contents("a GIF picture", OTHER_PROGRAM, picture="GIF")),
    (0, b"II*\0", _TIFF),
    (0, b"MM\0*", _TIFF),
    (0, b"\x1aE\xdf\xa3", Contents("a WebM or Matroska video", OTHER_PROGRAM, video="matroska")),
    *((4, part, _MOV) for part in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    (8, b"WEBP", Contents("a WebP picture", OTHER_PROGRAM, picture="WEBP")),
    (8, b"AVI ", Contents("an AVI video", OTHER_PROGRAM, video="avi")),
    (4, b"TFL3", Contents("a TensorFlow Lite model")),
    (0, b"%PDF", Contents("a PDF document", OTHER_PROGRAM)),
    (0, b"7z\xbc\xaf\x27\x1c", Contents("a 7z archive", "Unpack it.")),
    (0, b"Rar!", Contents("a RAR archive", "Unpack it.")),
    (0, b"\xfd7zXZ\x00", Contents("an xz archive", "Unpack it.")),
    (0, b"\x28\xb5\x2f\xfd", Contents("a Zstandard archive", "Unpack it.")),
    (257, b"ustar", Contents("a tar archive", "Unpack it.")),
    (0, b"\x7fELF", Contents("a program", OTHER_PROGRAM)),
    (0, b"\x00\x05\x16\x07", Contents("an AppleDouble file, which macOS leaves beside others", "Delete it.")),
    (0, b"\xff\xd8", Contents("a JPEG picture", OTHER_PROGRAM, picture="JPEG")),
    (0, b"\x1f\x8b", Contents("a gzip archive", "Unpack it.")),
    (0, b"MZ", Contents("a program for Windows", OTHER_PROGRAM)),
    (0, b"BM", Contents("a BMP picture", OTHER_PROGRAM, picture="BMP")),
)  # fmt: skip
"""Bytes at a place, and what has them there. The shortest come last, since others may begin like them by chance."""
_PICKLE = Contents("a bare pickle, not a PyTorch file")
_ONNX = Contents("an ONNX model")
_UNKNOWN = Contents("damaged, or of an unknown format", "Download it again, or get it as .safetensors.")


def contents_of(path: Path) -> Contents:
    """Returns what a file contains. Raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return SAFETENSORS
    if (contents := _by_signature(head)) is not None:
        return contents
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return _PICKLE
    if head[:1] == b"\x08" and b"\x12" in head[2:4]:  # the version of the format, and the name of the program that wrote it
        return _ONNX
    if not head.strip(b"\x00"):
        return ZEROS if head else EMPTY
    return _text(head) or _UNKNOWN


def kind_of_picture(begin: bytes) -> str:
    """Returns Pillow's name of the format of a file that begins like this; empty if it is none of those that are read."""
    contents = _by_signature(begin)
    return contents.picture if contents else ""


def kind_of_video(begin: bytes) -> str:
    """Returns ffmpeg's name of the container that begins like this; empty if it is none of those that are read."""
    contents = _by_signature(begin)
    return contents.video if contents else ""


def _by_signature(head: bytes) -> Contents | None:
    return next((contents for place, signature, contents in _SIGNATURES if head[place:].startswith(signature)), None)


def _text(head: bytes) -> Contents | None:
    """Returns which text a file begins with; None if that is no text."""
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < HEAD else "ignore").strip().lower()
    except UnicodeDecodeError:
        return None
    if text.startswith(("<!doctype html", "<html", "<head", "<body", "<?xml", "<!--")):
        return WEB_PAGE
    if text.startswith(("{", "[")):
        return Contents("a JSON text, not weights", "Download the weights that it describes.")
    return ANSWER if all(letter.isprintable() or letter.isspace() for letter in text) else None
