"""Videos: frames go out and come back, and broken files are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from detectron2_sam.commands.predict import video
from detectron2_sam.commands.predict.video import VideoReader, VideoWriter
from sam_common.errors import UserError


def write(path: Path, levels: list[int], size: tuple[int, int] = (48, 64)) -> None:
    with VideoWriter(path, fps=12.5) as writer:
        for level in levels:
            frame = np.zeros((*size, 3), np.uint8)
            frame[..., 0] = level  # red
            writer.write(frame)


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mov"])
def test_frames_come_back(tmp_path: Path, suffix: str) -> None:
    """Round trip: number, order, rate and, within what the codec loses, colours: red stays red."""
    path = tmp_path / f"a.{suffix}"
    write(path, [20, 100, 180])
    with VideoReader(path) as reader:
        assert reader.fps == pytest.approx(12.5) and reader.num_frames == 3
        frames = list(reader)
    assert not reader.fault and [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert [float(frame[..., 0].mean()) for frame in frames] == pytest.approx([20, 100, 180], abs=8)
    assert frames[2][..., 2].mean() < 15


def test_an_odd_side_loses_a_pixel(tmp_path: Path) -> None:
    """Edge case: the codec knows even sides only."""
    write(tmp_path / "a.mp4", [0], size=(47, 63))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert [frame.shape for frame in reader] == [(46, 62, 3)]


@pytest.mark.parametrize(("content", "message"), [(None, "no such video file"), (b"", "cannot be read as a video")])
def test_no_video(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Error: a file that is missing, and one without a frame."""
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        VideoReader(tmp_path / "a.mp4")
    assert "\n" not in str(error.value)


def test_a_list_of_videos_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would read the file that it names."""
    with VideoWriter(tmp_path / "other.mp4", fps=10) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'other.mp4'\n")
    with pytest.raises(UserError, match=r"list\.mp4 cannot be read as a video"):
        VideoReader(tmp_path / "list.mp4")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """Error: OpenCV would end the process with a segmentation fault."""
    path = tmp_path / "bad\udcff.avi"
    path.write_bytes(b"RIFF")
    for use in (lambda: VideoReader(path), lambda: write(path, [0])):
        with pytest.raises(UserError, match="not UTF-8, which OpenCV cannot open; rename it"):
            use()


class Capture:
    """In the place of OpenCV's: frames shown at these times, and what the file says of its rate and count."""

    def __init__(self, times: list[float], *, fps: float, count: float) -> None:
        self.times, self.told, self.next = times, {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}, 0

    def isOpened(self) -> bool:
        return True

    def grab(self) -> bool:
        self.next += 1
        return self.next <= len(self.times)

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, np.zeros((48, 64, 3), np.uint8)) if self.grab() else (False, None)

    def get(self, key: int) -> float:
        return self.told[key] if key in self.told else 1000 * self.times[self.next - 1]

    def release(self) -> None:
        pass


HEADS = {"mp4": b"\0\0\0\x20ftypisom", "webm": b"\x1aE\xdf\xa3"}
BURSTS = [*(i / 30 for i in range(10)), *(5.3 + i / 30 for i in range(10))]
"""Of a screen recording: ten frames at 30 per second, five seconds of stillness, ten more."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., VideoReader]:
    def make(suffix: str, times: list[float], *, fps: float, count: float) -> VideoReader:
        (tmp_path / f"a.{suffix}").write_bytes(HEADS[suffix])
        monkeypatch.setattr(video.cv2, "VideoCapture", lambda path: Capture(times, fps=fps, count=count))
        return VideoReader(tmp_path / f"a.{suffix}")

    return make


@pytest.mark.parametrize(("suffix", "fps", "count"), [("webm", 30, 168), ("mp4", 20 / 5.6333, 20)])
def test_a_variable_rate(reader: Callable[..., VideoReader], suffix: str, fps: float, count: float) -> None:
    """Derived by hand: times are the frames' own; at 30 per second the tenth frame is written 150 times; and nothing is
    damaged, though WebM's count is its duration times its rate."""
    frames = reader(suffix, BURSTS, fps=fps, count=count)
    assert len(list(frames)) == 20 and frames.fault == ""
    assert frames.times == pytest.approx(BURSTS) and frames.fps == pytest.approx(30)
    assert frames.copies == [*[1] * 9, 150, *[1] * 10] and not frames.is_still


def test_a_stillness_without_end(reader: Callable[..., VideoReader]) -> None:
    """Edge case: an hour between two frames is a minute in what is written."""
    frames = reader("mp4", [0, 0.1, 3600, 3600.1], fps=0.001, count=4)
    assert frames.copies == [1, 600, 1, 1] and frames.is_still


@pytest.mark.parametrize(
    ("times", "fps"), [([0.0, 0.033, 0.067, 0.1, 0.133], 30.0), ([0.0, 0.08, 0.04], 25.0), ([0.0, 0.0, 0.0], 25.0)]
)
def test_a_constant_rate_is_what_the_file_tells(times: list[float], fps: float) -> None:
    """Milliseconds that are rounded, and times that run backwards or stand still, change nothing."""
    assert video.frame_rate(times, fps) == fps


@pytest.mark.parametrize(
    ("suffix", "times", "count", "whole"),
    [
        ("mp4", [0.0, 0.1], 9, False),
        ("webm", [0.0, 0.1], 9, False),
        ("mp4", [0.0, 0.1, 0.2], 4, True),  # containers count one too many at times
        ("mp4", [0.0, 0.4, 0.8], 9, False),  # frames from its middle are missing: it counts them
        ("webm", [0.0, 0.4, 0.8], 9, True),
        ("webm", [0.0, 0.1, 0.2], 0, True),  # it promises nothing
    ],
)
def test_a_file_that_breaks_off_says_so(
    reader: Callable[..., VideoReader], suffix: str, times: list[float], count: int, whole: bool
) -> None:
    """Error: decoding ends before the frames, or the duration, that the file promises; what there was is given."""
    frames = reader(suffix, times, fps=10, count=count)
    assert len(list(frames)) == len(times)
    assert frames.fault.endswith("" if whole else f"ends after {len(times)} of {count} frames; it is damaged")
    assert (frames.fault == "") is whole


def test_copies_are_written(tmp_path: Path) -> None:
    """Round trip: a frame that is written three times is there three times."""
    with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 3)
    with VideoReader(tmp_path / "a.mp4") as frames:
        assert len(list(frames)) == 3 == writer.num_frames


def test_a_video_that_could_not_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: OpenCV drops frames in silence where the disk is full, and opens no writer without a folder."""

    class Silent:
        """Takes every frame and writes none."""

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *arguments: object) -> None:
            pass

        def isOpened(self) -> bool:
            return True

        def write(self, frame: np.ndarray) -> None:
            pass

        def release(self) -> None:
            pass

    with pytest.raises(UserError, match="cannot write the video"):
        write(tmp_path / "missing" / "a.mp4", [0])
    monkeypatch.setattr(video.cv2, "VideoWriter", Silent)
    with pytest.raises(UserError, match=r"cannot write .*a\.mp4: the video is not whole; is the disk full"):
        write(tmp_path / "a.mp4", [0, 0])
