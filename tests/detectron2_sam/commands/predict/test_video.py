"""Videos: frames go out and come back, and broken files are named."""

from __future__ import annotations

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


def test_a_file_that_breaks_off_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: decoding ends after 2 of 9 promised frames; those two were given."""
    write(tmp_path / "a.mp4", [0] * 9)
    reader = VideoReader(tmp_path / "a.mp4")
    reads = [(True, np.zeros((48, 64, 3), np.uint8)), (False, None)]

    class Capture:
        def read(self) -> tuple[bool, np.ndarray | None]:
            return reads.pop(0)

    monkeypatch.setattr(reader, "_capture", Capture())
    assert len(list(reader)) == 2
    assert reader.fault.endswith("ends after 2 of 9 frames; it is damaged")


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
