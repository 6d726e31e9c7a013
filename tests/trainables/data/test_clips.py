from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.trainables.data.videos import write_video
from trainables.data.clips import ClipReader, fitted, read_clip
from trainables.data.file_ends import missing_bytes
from trainables.data.human_removal.clip_files import read_whole
from trainables.data.reencode import Recipe, reencode
from trainables.data.video_files import ClipUnreadable

CHOSEN: dict = {}
RECIPE = Recipe(short_side=64, gop=4, crf=20)


@pytest.fixture(params=["decord", "pyav"], autouse=True)
def video_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here holds for both."""
    monkeypatch.setitem(CHOSEN, "video_reader", request.param)


def read(path: Path, **changes: object) -> np.ndarray:
    settings: dict = {
        "frames": 4,
        "seconds": 100.0,
        "position": 0.0,
        "short_side": 1000,
        "frame_rate": None,
        **CHOSEN,
    }
    return read_clip(path, **{**settings, **changes})


def all_frames(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("width", [16, 24, 46, 48, 50, 64, 72, 98])
@pytest.mark.parametrize("height", [36, 50])
def test_every_size_is_read_as_another_decoder_reads_it(
    tmp_path: Path, width: int, height: int
) -> None:
    path = write_video(tmp_path / "clip.mp4", width=width, height=height)
    assert np.array_equal(read(path, frames=20), all_frames(path))


@pytest.mark.parametrize("size", [(64, 48), (50, 98), (480, 270), (91, 65)])
@pytest.mark.parametrize("short_side", [16, 31, 48])
def test_large_frames_are_shrunk_to_the_short_side_and_small_ones_stay(
    tmp_path: Path, size: tuple[int, int], short_side: int
) -> None:
    width, height = size
    pixel_format = "yuv444p" if width % 2 else "yuv420p"
    path = write_video(tmp_path / "clip.mp4", width=width, height=height, format=pixel_format)
    video = read(path, frames=20, short_side=short_side)
    assert min(video.shape[1:3]) == min(short_side, *size)
    assert video.shape[2] / video.shape[1] == pytest.approx(width / height, rel=0.05)
    shape = video.shape[2:0:-1]
    wanted = [cv2.resize(f, shape, interpolation=cv2.INTER_AREA) for f in all_frames(path)]
    assert np.array_equal(video, wanted) or min(size) <= short_side


@pytest.mark.parametrize("gop", [1, 7, 250])
def test_a_window_is_the_seconds_that_were_asked_for(tmp_path: Path, gop: int) -> None:
    path = write_video(tmp_path / "clip.mp4", count=50, rate=10, gop=gop)
    every = all_frames(path)
    first = read(path, seconds=2.0)
    assert np.array_equal(first, every[[2, 7, 12, 17]])
    last = read(path, seconds=2.0, position=1.0)
    assert np.array_equal(last, every[[32, 37, 42, 47]])
    middle = read(path, seconds=2.0, position=0.5)
    assert np.array_equal(middle, every[[17, 22, 27, 32]])


def test_a_clip_shorter_than_the_window_is_used_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", count=8, rate=10)
    every = all_frames(path)
    for position in (0.0, 0.3, 1.0):
        assert np.array_equal(read(path, frames=4, position=position), every[[1, 3, 5, 7]])
    assert np.array_equal(read(path, frames=16), every.repeat(2, axis=0))


def frame_folder(path: Path, count: int = 8) -> Path:
    path.mkdir()
    for i in range(count):
        image = np.zeros((40, 60, 3), np.uint8)
        image[..., 2] = 20 * i  # red, as OpenCV orders channels
        cv2.imwrite(str(path / f"{i:03}.png"), image)
    return path


def test_a_folder_of_frames_is_a_clip_at_its_stated_rate(tmp_path: Path) -> None:
    path = frame_folder(tmp_path / "clip")
    (path / "notes.txt").write_text("no frame")
    video = read(path, seconds=0.4, frame_rate=10.0, short_side=20)
    assert video.shape == (4, 20, 30, 3)
    assert video[:, 0, 0].tolist() == [[20 * i, 0, 0] for i in range(4)]
    assert np.array_equal(read(path, frames=8, frame_rate=10.0)[:, 0, 0, 0], 20 * np.arange(8))


def one_size_after_another(path: Path) -> Path:
    """Four frames of 64x48, then four of 96x48, which VP8 may do at a key frame."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        for part, width in enumerate((64, 96)):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, 48, "yuv420p"
            encoder.time_base = Fraction(1, 10)
            black = av.VideoFrame.from_ndarray(np.zeros((72, width), np.uint8), format="yuv420p")
            packets = []
            for number in range(4):
                black.pts, black.time_base = 4 * part + number, encoder.time_base
                packets += encoder.encode(black)
            for packet in packets + encoder.encode(None):
                packet.stream = stream
                container.mux(packet)
    return path


def test_a_video_whose_frames_change_size_is_refused_or_read_at_the_first_size(
    tmp_path: Path,
) -> None:
    """decord does not tell it, and stretches what comes later."""
    path = one_size_after_another(tmp_path / "clip.webm")
    if CHOSEN["video_reader"] == "decord":
        assert read(path, frames=8).shape == (8, 48, 64, 3)
        return
    with pytest.raises(ClipUnreadable, match="its frames differ in size"):
        read(path, frames=8)
    assert read(path, frames=2, seconds=0.4).shape == (2, 48, 64, 3)
    assert read(path, frames=2, seconds=0.4, position=1.0).shape == (2, 48, 96, 3)


def damaged(tmp_path: Path, damage: str) -> Path:
    path = tmp_path / "clip.mp4"
    if damage == "missing":
        return path
    if damage == "one frame":
        return write_video(path, count=1)
    if damage == "folder of one frame":
        return frame_folder(path, count=1)
    if damage == "folder of two sizes":
        cv2.imwrite(str(frame_folder(path) / "003.png"), np.zeros((40, 50, 3), np.uint8))
        return path
    if damage == "folder with a bad frame":
        (frame_folder(path) / "003.png").write_bytes(b"")
        return path
    whole = write_video(path, count=40).read_bytes()
    index_first = write_video(path, count=40, index_first=True).read_bytes()
    content = {
        "zero bytes": b"",
        "not video": b"hello\n" * 100,
        "truncated": whole[: len(whole) // 2],
        "truncated after its index": index_first[: int(0.6 * len(index_first))],
        "overwritten": index_first[: len(index_first) // 2] + bytes(len(index_first) // 2),
    }
    path.write_bytes(content[damage])
    return path


@pytest.mark.parametrize(
    "damage",
    [
        "missing",
        "zero bytes",
        "not video",
        "truncated",
        "truncated after its index",
        "overwritten",
        "one frame",
        "folder of one frame",
        "folder with a bad frame",
        "folder of two sizes",
    ],
)
def test_a_damaged_clip_says_that_it_cannot_be_read(tmp_path: Path, damage: str) -> None:
    path = damaged(tmp_path, damage)
    with pytest.raises(ClipUnreadable) as caught:
        read(path, frame_rate=10.0)
    assert caught.value.path == str(path)
    assert len(caught.value.reason) > 5


def one_packet_a_frame(path: Path, live: bool = False) -> list[int]:
    """Writes a video of 12 frames, and returns where in the file each of them begins."""
    codec = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}[path.suffix]
    options = {"live": "1"} if live else {}
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3)).astype(np.uint8)
    with av.open(path, "w", options={"movflags": "faststart", **options}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(path) as container:
        return sorted(packet.pos for packet in container.demux(video=0) if packet.size)


def test_a_box_of_64_bits_is_followed_to_its_end(tmp_path: Path) -> None:
    header = b"\0\0\0\x08ftyp" + b"\0\0\0\x01mdat" + (5_000_000_000).to_bytes(8, "big")
    (tmp_path / "large.mp4").write_bytes(header)
    assert missing_bytes(tmp_path / "large.mp4") == 8 + 5_000_000_000 - len(header)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "webm"])
def test_a_file_cut_between_two_frames_is_not_taken_for_a_shorter_clip(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"clip.{suffix}"
    places = one_packet_a_frame(path)
    assert len(places) == 12
    assert len(read(path, frames=12)) == 12
    content = path.read_bytes()
    for place in places[4:]:
        path.write_bytes(content[:place])
        for take in (read, read_whole, lambda cut: reencode(cut, tmp_path / "new", RECIPE, None)):
            with pytest.raises(ClipUnreadable, match=f"its last {len(content) - place} bytes are"):
                take(path)


def test_what_a_file_does_not_say_of_its_end_is_nothing_against_it(tmp_path: Path) -> None:
    followed = write_video(tmp_path / "followed.mp4", index_first=True)
    expected = read(followed)
    whole = followed.read_bytes()
    for behind in (b"made by somebody" * 8, b"\0\0\0\x01junk" + b"\xff" * 64):
        followed.write_bytes(whole + behind)
        assert (read(followed) == expected).all()
    one_packet_a_frame(tmp_path / "live.mkv", live=True)
    assert missing_bytes(tmp_path / "live.mkv") == 0
    one_packet_a_frame(tmp_path / "piped.avi")
    content = (tmp_path / "piped.avi").read_bytes()
    (tmp_path / "piped.avi").write_bytes(content[:4] + b"\xff\xff\xff\xff" + content[8:])
    assert len(read(tmp_path / "piped.avi", frames=12)) == 12


def test_short_clips_are_kept_up_to_the_budget_and_long_ones_never(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{i}.mp4", count=8, rate=10) for i in range(3)]
    size = read(paths[0]).nbytes
    reader = ClipReader(frames=4, seconds=1.0, short_side=1000, keep_bytes=2 * size, **CHOSEN)
    first = [reader.read(path, 0.0, None) for path in paths]
    again = [reader.read(path, 1.0, None) for path in paths]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False]
    long = ClipReader(frames=4, seconds=0.4, short_side=1000, keep_bytes=2 * size, **CHOSEN)
    assert not np.array_equal(long.read(paths[0], 0.0, None), long.read(paths[0], 1.0, None))


def test_frames_are_cut_to_the_shape_from_their_middle() -> None:
    frames = np.zeros((2, 24, 64, 3), np.uint8)
    frames[:, :, 16:48] = 200
    assert fitted(frames, 32, 24).shape == (2, 24, 32, 3)
    assert fitted(frames, 32, 24).min() == 200
    enlarged = fitted(frames, 128, 48)
    assert enlarged.shape == (2, 48, 128, 3)
    assert 0 < enlarged[0, 24, 31, 0] < 200  # no blocks
