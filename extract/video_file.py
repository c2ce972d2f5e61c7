"""Encoded videos, through PyAV (FFmpeg); ``extract.video_damage`` says which of them are refused."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from extract.spec import DecodeSpec
from extract.video import DraftError, Scan, VideoSource
from extract.video_damage import Tally
from store.errors import DecodeError

REORDERED_FRAMES = 16  # a decoder holds back no more frames than this
Stamp = tuple[int | None, int | None]
SIGNATURES = ((4, b"ftyp", "an MP4"), (0, b"RIFF", "an AVI"), (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM"), (0, b"FLV", "an FLV"))


class FileSource(VideoSource):
    """A video file. One decoding thread: the workers are the parallelism, and more threads were slower."""

    def __init__(self, path: Path, spec: DecodeSpec, on_progress: Callable[[], None] | None, stream: int | None, draft: bool) -> None:
        super().__init__(path, spec, on_progress, draft)
        self._stream = stream
        self._reformatter = VideoReformatter()
        self._first_pass: Iterator[av.VideoFrame] | None = None

    def _draft(self) -> Scan | None:
        """What the packets promise. Packets of one byte stand in old AVI files for a frame that is held back; edit lists discard others."""
        with self._open() as container:
            stream = self._video_stream(container)
            packets = (packet for packet in self._packets(container, stream) if packet.size > 1 and not packet.is_discard)
            stamps: list[Stamp] = [(packet.pts, packet.dts) for packet in packets]
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            size = stream.codec_context.height, stream.codec_context.width
            unit = float(stream.time_base or 0)
        if not stamps:
            return None
        if all(pts is not None for pts, _ in stamps):
            stamps.sort(key=lambda stamp: stamp[0] or 0)
        return Scan(*frame_times(stamps, unit, None, rate), *size)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
        with suppress(av.FFmpegError):  # a cut file; decoding it will tell
            for packet in container.demux(stream):
                self._note()
                yield packet

    def _scan(self) -> Scan:
        for _ in self._first_pass or self._record():
            pass
        if verdict := self._tally.verdict(self._spec.partial):
            raise self._error(verdict)
        last = self._last
        times, end = frame_times(self._stamps, float(last.time_base or 0), last.duration, self._tally.rate)
        width, height = reversed(self._size) if self._turn[0] else self._size
        return Scan(times, end, height, width)

    def _record(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, noting what ``_scan`` needs to know of it."""
        self._stamps: list[Stamp] = []
        for frame in self._decode():
            if not self._stamps:
                self._size, self._turn = (frame.width, frame.height), display_turn(frame)
            elif (frame.width, frame.height) != self._size:
                raise self._error(
                    f"frame size changes from {self._size[0]}x{self._size[1]} to {frame.width}x{frame.height} at frame "
                    f"{len(self._stamps)}; encode the video again with one size"
                )
            self._stamps.append((frame.pts, frame.dts))
            self._last = frame
            yield frame

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        wanted = iter(indices.tolist())
        target = next(wanted, None)
        frames = self._decode()
        if self.is_draft:
            frames = self._first_pass = self._record()
        for number, frame in enumerate(frames):
            if number == target:
                yield self._rgb(frame)
                target = next(wanted, None)
            if target is None:
                return
        if target is not None and self.is_draft:
            raise DraftError(f"{self.path}: frame {target} is promised but does not decode")
        if target is not None:
            raise self._error(f"frame {target} decoded at first but not the second time; has the file changed meanwhile?")

    def _close(self) -> None:
        self._first_pass = None

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, in display order; what is lost on the way is noted in ``self._tally``."""
        with self._open() as container:
            stream = self._video_stream(container)
            tally = self._tally = Tally(container, stream)
            try:
                for packet in container.demux() if tally.all_streams else container.demux(stream):
                    self._note()
                    tally.packet(packet)
                    if packet.stream.index == stream.index:  # stream_index is 0 in the packets that end a stream
                        yield from self._decode_packet(stream, packet)
            except av.FFmpegError as error:
                tally.problem = f"reading stops: {error.strerror}"
                yield from self._decode_packet(stream, None)

    def _decode_packet(self, stream: VideoStream, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            self._tally.refuse(error.strerror or str(error))
            return
        self._tally.decoded(frames)
        yield from frames

    def _open(self) -> InputContainer:
        try:
            container = av.open(str(self.path.absolute()), metadata_errors="ignore")
        except av.FFmpegError as error:
            raise self._error(f"not a video that FFmpeg can read: {error.strerror}{self._hint()}") from None
        kind = container.format.name
        if kind == "tty" or kind == "image2" or kind.endswith("_pipe"):
            container.close()
            what = "a text file" if kind == "tty" else f"a still image ({kind})"
            raise self._error(f"not a video that FFmpeg can read: {what}; list video files or folders of frames")
        return container

    def _video_stream(self, container: InputContainer) -> VideoStream:
        streams = [item for item in container.streams.video if not item.disposition & Disposition.attached_pic]
        held = ", ".join(f"{item.index} {item.type}" for item in container.streams) or "none"
        if self._stream is not None:
            chosen = [item for item in streams if item.index == self._stream]
            if not chosen:
                raise self._error(f"stream {self._stream} is not a video stream; streams: {held}")
        else:
            chosen = [item for item in streams if item == container.streams.best("video")] or streams
            if not chosen:
                raise self._error(f"no video stream; streams: {held}")
        stream = chosen[0]
        if getattr(stream, "codec_context", None) is None:  # PyAV's types promise one
            raise self._error("FFmpeg has no decoder for its video codec; encode it again, for example as H.264")
        stream.codec_context.thread_count = 1
        return stream

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        self._note()
        # swscale's own threads cost more than they give on frames this small
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        transposed, mirrored, flipped = self._turn
        rgb = rgb.swapaxes(0, 1) if transposed else rgb
        rgb = rgb[:: -1 if flipped else 1, :: -1 if mirrored else 1]
        return np.ascontiguousarray(rgb)

    def _hint(self) -> str:
        with self.path.open("rb") as file:
            head = file.read(16)
        for offset, signature, name in SIGNATURES:
            if head[offset:].startswith(signature):
                return f"; it begins as {name} file, so it is probably cut short"
        return ""

    def _error(self, reason: str) -> DecodeError:
        return DecodeError(f"{self.path}: {reason}")


def frame_times(stamps: list[Stamp], unit: float, last_duration: int | None, rate: float) -> tuple[np.ndarray, float]:
    """Seconds since the first frame of each frame, float64 [K], and of the end of the last.

    ``stamps`` are (presentation, decoding) time stamps of the frames in display order, in units of ``unit`` seconds. AVI holds no
    presentation times, and those that FFmpeg makes up are out of order where there are B-frames; then the decoding times, which are the
    frames' slots, are taken, the last ones (of frames that leave the decoder after all packets) continued at the rate. Without any usable
    ones frame k is at k / ``rate``.
    """
    rate = rate or 25.0
    for column in zip(*stamps, strict=True):
        known = [stamp for stamp in column if stamp is not None]
        tail = column[len(known) :]
        if known and unit > 0 and len(tail) <= REORDERED_FRAMES and not any(stamp is not None for stamp in tail) and _ascends(known):
            times = (np.array(known, np.float64) - known[0]) * unit
            times = np.concatenate([times, times[-1] + np.arange(1, len(tail) + 1) / rate])
            break
    else:
        times = np.arange(len(stamps)) / rate
    return times, float(times[-1]) + ((last_duration or 0) * unit or 1 / rate)


def _ascends(stamps: list[int]) -> bool:
    return all(earlier < later for earlier, later in itertools.pairwise(stamps))


def display_turn(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transposed, mirrored, flipped): how to bring the frame upright by its display matrix, in this order.

    The matrix maps a pixel (x, y) to (a x + c y, b x + d y); turns that are no multiple of 90 degrees go to the nearest one.
    """
    data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if data is None:
        return False, False, False
    (a, b, _), (c, d, _), _ = np.frombuffer(data, np.int32).reshape(3, 3).tolist()
    if abs(b) > abs(a):
        return True, c < 0, b < 0
    return False, a < 0, d < 0
