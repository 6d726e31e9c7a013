"""Whether a video file was cut off, as its container tells: a reader takes one that happens to end
between two frames for a shorter video."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska and WebM, RFC 9559
UNKNOWN = 2**32 - 1  # in an AVI, of which the writer could not go back


def missing_bytes(path: Path) -> int:
    """How much further the file should go: 0 if it is whole or its format does not say.

    MP4 and MOV by their boxes (ISO/IEC 14496-12), AVI by its first RIFF chunk, Matroska and WebM
    by their segment.
    """
    with path.open("rb") as file:
        length = file.seek(0, 2)
        head = _at(file, 0, 12)
        if head[4:8] == b"ftyp":
            end = _end_of_boxes(file, length)
        elif head[:4] == b"RIFF":
            size = int.from_bytes(head[4:8], "little")
            end = 0 if size == UNKNOWN else 8 + size
        elif head[:4] == EBML:
            end = _end_of_segment(file)
        else:
            end = 0
        return max(0, end - length)


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    """Where the last box of samples or of their index ends; what is behind them may be anything."""
    end = place = 0
    while place < length and len(head := _at(file, place, 16)) >= 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0: as far as the file goes
            break
        place += size
        if kind in (b"moov", b"mdat"):
            end = place
    return end


def _end_of_segment(file: BinaryIO) -> int:
    header, start = _length(_at(file, 4, 8))
    place = 4 + start + header
    head = _at(file, place, 12)
    if head[:4] != SEGMENT:
        return 0
    size, start = _length(head[4:])
    is_unknown = size == (1 << 7 * start) - 1
    return 0 if is_unknown else place + 4 + start + size


def _length(data: bytes) -> tuple[int, int]:
    """A number of variable length, RFC 8794, and how many bytes it takes."""
    width = 9 - data[0].bit_length() if data else 8
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
