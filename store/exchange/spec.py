"""What imported features are: who made them, and every choice that decided their values and times while they were read."""

from dataclasses import dataclass, field, replace
from typing import Literal

from store.digest import Checked, demand, setting
from store.files import safe_name

FORMAT = 1  # raised when the meaning of a spec changes, so that old and new imports never mix
MAX_FRAMES = 2**31 - 1  # of a stride, length or start, so that no arithmetic on frames leaves 64 bits
COMPANIONS = ("frames", "times", "fps", "timestamps_ms")  # names of arrays that say when rows were, and are no features


@dataclass(frozen=True)
class TimingSpec(Checked):
    """When each row was. ``docs/exchange.md`` has the arithmetic; a resolved spec has no ``auto``."""

    frames: Literal["auto", "files", "stride", "rows"] = setting(
        "auto",
        "where frame spans come from. files: what lies beside the features; stride: arithmetic; rows: not known, row i is frame i; "
        "auto: stride where one is given, files where the first video has them, else rows",
    )
    times: Literal["auto", "files", "fps", "rows"] = setting(
        "auto",
        "where times come from. files: what lies beside the features; fps: the frame spans; rows: not known, row i is second i to i + 1; "
        "auto: the first of these that the first video has",
    )
    stride: int = setting(0, "frames between the first frames of neighbouring rows; 0: not known")
    length: int = setting(0, "frames that each row speaks of; 0: not known (with a stride: as many)")
    start: int = setting(0, "first frame of the first row (with a stride)")
    base: int | None = setting(None, "number of a video's first frame in file names (layout c3d); not given: 0, if any file has it")
    fps: float = setting(0.0, "frames per second; 0: what the files say, where they say it")
    stamps: Literal["start", "end", "ignore"] = setting("start", "what a time stamp of the files marks: the start or the end of its row")

    def check(self) -> None:
        for name in ("stride", "length", "start", "fps"):
            demand(getattr(self, name) >= 0, f"timing.{name} is {getattr(self, name)}; it must be 0 or positive")
            demand(getattr(self, name) <= MAX_FRAMES, f"timing.{name} is {getattr(self, name)}; it must be at most {MAX_FRAMES}")
        demand(self.base is None or 0 <= self.base <= MAX_FRAMES, f"timing.base is {self.base}; it must be 0 to {MAX_FRAMES}")
        demand(self.frames != "stride" or self.stride > 0, "timing.frames is 'stride' but no timing.stride is given")
        demand(self.times != "fps" or self.fps > 0, "timing.times is 'fps' but no timing.fps is given")
        for name in ("stride", "start"):
            demand(
                self.frames in ("auto", "stride") or not getattr(self, name),
                f"timing.{name} is {getattr(self, name)}, of which timing.frames {self.frames!r} makes no use; leave one away",
            )
        demand(not self.start or self.stride > 0, f"timing.start is {self.start} but no timing.stride is given")


@dataclass(frozen=True)
class ImportSpec(Checked):
    """Everything that decides an imported feature's value and time, besides the files. Their identity is the user's word: ``origin``."""

    layout: str = setting("", "how SOURCE is laid out, see `actioncache store layouts`")
    origin: str = setting("", "where the features come from: network, weights, tool, in your words; part of their identity (required)")
    keys: tuple[str, ...] = setting((), "names of a video's arrays, e.g. rgb,flow of v_rgb.npy and v_flow.npy; they become levels")
    place: Literal["auto", "none", "suffix", "folder", "inside"] = setting(
        "auto",
        "where a key stands. suffix: VIDEO_key; folder: key/VIDEO; inside: VIDEO/key; none: every array is one video; "
        "auto: none without keys, else as the layout has it",
    )
    level: str = setting("features", "name of the level where arrays have no key")
    crops: int = setting(10, "crops of each clip")
    crop_files: Literal["together", "separate"] = setting(
        "together", "together: one array [n, crops, width] a video; separate: arrays [n, width] named VIDEO__0, VIDEO__1, ..."
    )
    rows_axis: int = setting(0, "which axis of an array counts the clips (from 0); it is moved to the front")
    flat: Literal["row", "rows"] = setting(
        "row", "what an array [n] is. row: one row of n numbers (one vector a video); rows: n rows of one number"
    )
    squeeze: bool = setting(False, "drop the other axes of length 1, e.g. of [n, width, 1, 1]")
    dtype: Literal["source", "float16", "float32"] = setting(
        "source", "type to store; source keeps float16 and float32 and rounds float64 to float32"
    )
    timing: TimingSpec = field(default_factory=TimingSpec)
    format: int = setting(FORMAT, "meaning of this spec; set by the program")

    def check(self) -> None:
        for name in (*self.keys, self.level):
            safe_name(name, "level")
        wrong = sorted(set(self.keys) & set(COMPANIONS))
        demand(not wrong, f"keys name {', '.join(wrong)}: such arrays say when rows were and are found without being named")
        demand(len(set(self.keys)) == len(self.keys), f"keys {list(self.keys)} name one key twice")
        demand(self.place in ("auto", "none") or bool(self.keys), f"place is {self.place!r}, which needs --keys")
        demand(self.place != "none" or not self.keys, f"place is 'none': every array is a video, so the keys {list(self.keys)} are nowhere")
        demand(self.crops >= 1, f"crops is {self.crops}; it must be at least 1")
        demand(0 <= self.rows_axis <= 8, f"rows_axis is {self.rows_axis}; it must be 0 to 8")
        demand(self.format == FORMAT, f"this spec has format {self.format}; this version of actioncache writes format {FORMAT}")

    def with_keys(self, keys: tuple[str, ...], place: Literal["suffix", "inside"]) -> "ImportSpec":
        """The same spec with keys that a layout found out, sorted: two orders are one store."""
        return replace(self, keys=tuple(sorted(keys)), place=place)
