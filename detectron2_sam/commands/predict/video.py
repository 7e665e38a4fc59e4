"""Reading and writing videos with OpenCV, one frame in memory at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sam_common.errors import UserError

_DEFAULT_FPS = 25.0  # of files that do not say


class VideoReader:
    """The frames of a video, uint8 RGB [H, W, 3], upright.

    Attributes:
        fps: frames per second.
        num_frames: how many the file says it has; 0 where it does not say.
        fault: after the last frame: one line if the file broke off before the frames that it promises, else "".

    Raises:
        UserError: the file is missing or no video.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        self.fault = ""
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such video file")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # silent: what is wrong is said here, in one line
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path} cannot be read as a video: it is damaged, or OpenCV lacks its codec")
        ok, self._first = self._capture.read()
        if not ok:
            raise UserError(f"{path} cannot be read as a video: no frame of it can be decoded")
        fps, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.fps = fps if math.isfinite(fps) and fps > 0 else _DEFAULT_FPS
        self.num_frames = max(0, int(count)) if math.isfinite(count) else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        number, ok, frame = 0, True, self._first
        while ok:
            number += 1
            yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV's are BGR
            ok, frame = self._capture.read()
        if number < self.num_frames - 1:  # containers count one too many at times
            self.fault = f"{self.path} ends after {number} of {self.num_frames} frames; it is damaged"

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.release()


class VideoWriter:
    """Writes uint8 RGB frames [H, W, 3] of one size to an MPEG-4 file.

    Raises:
        UserError: the file cannot be written; of a disk that filled up on the way this is known at the end only.
    """

    def __init__(self, path: str | os.PathLike, *, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.num_frames = 0
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame; the first decides the size. An odd side loses its last row or column to the codec."""
        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, size)
            if not self._writer.isOpened():
                raise UserError(f"cannot write the video {self.path}, {size[0]} × {size[1]} at {self.fps:g} frames/s")
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self.num_frames += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None and not self._is_whole():  # OpenCV's writer reports nothing
            raise UserError(f"cannot write {self.path}: the video is not whole; is the disk full?")

    def _is_whole(self) -> bool:
        capture = cv2.VideoCapture(str(self.path))
        written = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        return written >= self.num_frames
