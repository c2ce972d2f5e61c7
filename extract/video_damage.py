"""How much of an encoded video is lost.

A video that lacks more than max(3, 2 %) of the frames that its container claims, because the file is cut short or the decoder refuses
packets, is damaged: a ``DecodeError`` unless ``DecodeSpec.partial`` is set. Less is normal: the headers of HMDB-51 claim a frame or two
more than they hold.

Where chunks of an AVI file are lost, decoders also drop what was coded as the difference to them, and say nothing; so there the pictures
that went into the decoder are compared with the frames that came out.

Two kinds of damage are not seen: blocks that the decoder conceals, and missing ends in containers that state no length (MPEG-TS and -PS,
fragmented MP4).
"""

import av
from av.container import InputContainer
from av.video.stream import VideoStream

LOST_FRAMES, LOST_SHARE = 3, 0.02
UNFINISHED = 1  # a picture at the end of many whole AVI files is never shown: its second half was to come
HIDING_CODECS = ("vp8", "vp9", "av1")  # some of their packets hold a picture that is never shown
PICTURE_START = b"\0\0\1\xb6"  # of MPEG-4, which nothing else in its packets looks like
EMPTY_PICTURE_BYTES = 16  # a packet of MPEG-4 no longer than this holds no picture: it repeats one, or stands for one of an earlier packet


class Tally:
    """Keeps count, during one pass, of what a container claims to hold against what comes out of it."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.all_streams = False  # the claim is about the longest stream, so all must be read
        self.packets = self.pictures = self.frames = self.refused = self.refused_at = 0
        self.problem = ""
        self._stream = stream.index
        self._units: dict[int, float] = {}  # of the streams' time stamps, in seconds
        self._claimed_seconds: float | None = None
        self._first: float | None = None
        self._last = 0.0
        kind = container.format.name
        codec = stream.codec_context.name
        self._compares, self._packs = kind == "avi" and codec not in HIDING_CODECS, codec == "mpeg4"
        if kind == "avi" and stream.frames and stream.time_base:  # its duration is what FFmpeg guesses from the file's size
            self._claimed_seconds = float(stream.frames * stream.time_base)
        elif "mp4" in kind and stream.duration and stream.time_base:  # its number of frames counts those outside an edit list, too
            self._claimed_seconds = float(stream.duration * stream.time_base)
        elif kind in ("matroska,webm", "flv") and container.duration:
            self._claimed_seconds, self.all_streams = container.duration / av.time_base, True

    def packet(self, packet: av.Packet) -> None:
        """Note a packet and the time that it reaches."""
        stamp = packet.dts if packet.pts is None else packet.pts
        index = packet.stream.index
        if index not in self._units:
            self._units[index] = float(packet.time_base or 0)  # a fraction, which is slow to ask for each time
        unit = self._units[index]
        if stamp is None or not unit:
            return  # the empty packet at the end
        start = stamp * unit
        if index == self._stream:
            self.packets += 1
            self.pictures += self._pictures(packet) if self._compares else 0
        self._first = start if self._first is None else min(self._first, start)
        self._last = max(self._last, start + (packet.duration or 0) * unit)

    def decoded(self, frames: list[av.VideoFrame]) -> None:
        """Note frames that came out of the decoder."""
        self.frames += len(frames)
        if any(frame.interlaced_frame for frame in frames):
            self._compares = False  # the two fields of a frame may be two packets

    def refuse(self, reason: str) -> None:
        """Note a packet that does not decode."""
        if not self.refused:
            self.refused_at, self.problem = self.frames, reason
        self.refused += 1

    def verdict(self, partial: bool) -> str:
        """What is wrong in words, or nothing. ``partial``: any frame is enough."""
        missing = self._missing_frames()
        total = self.packets + missing
        problem = f" ({self.problem})" if self.problem else ""
        if not self.frames:
            return f"no frame decodes of about {total}{problem}; the file is damaged or cut short"
        dropped = max(0, self.pictures - self.refused - self.frames - UNFINISHED) if self._compares else 0
        if partial or missing + self.refused + dropped <= max(LOST_FRAMES, LOST_SHARE * total):
            return ""
        if dropped:
            what = (
                f"{self.frames} frames decode of about {total}: chunks are lost, and the decoder drops {dropped} frames that build on them"
            )
        elif missing:
            what = f"decoding stops at frame {self.frames} of about {total}: the file is cut short"
        else:
            what = f"the decoder refuses {self.refused} packets of {total}, the first after frame {self.refused_at}"
        return f"{what}{problem}; get a whole copy, or set decode.partial to take the {self.frames} frames that decode"

    def _pictures(self, packet: av.Packet) -> int:
        """Pictures in a packet. MPEG-4's may hold two, and one that only stands for the second then follows."""
        if not self._packs:
            return int(packet.size > 1)
        return bytes(packet).count(PICTURE_START) if packet.size > EMPTY_PICTURE_BYTES else 0

    def _missing_frames(self) -> int:
        """Frames that are claimed but have not been read, from the seconds and the density of those that have."""
        if self._claimed_seconds is None:
            return 0
        span = self._last - (self._first or 0.0)
        missing = self._claimed_seconds - max(span, self._last)  # whether a claim counts from zero or from the first frame varies
        density = self.packets / span if self.packets > 1 and span > 0 else self.rate
        return max(0, round(missing * density))
