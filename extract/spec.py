"""What a feature is: every choice that changes its value, as frozen self-checking dataclasses.

``digest(FeatureSpec)`` names the store. Nothing that only changes speed (batch size, workers, device) is in here.
"""

from dataclasses import dataclass, field
from typing import Literal

from store.digest import Checked, demand, setting

FLOW_FILES = "files"  # the flow method that computes nothing, see extract.flow_files
LARGEST_SIDE = 8192  # of a resized frame, in pixels
MOST_IMAGES = 4096  # of a forward pass
MOST_WORKERS = 4096
LARGEST = 10**7  # frames in the clips of one video, where the spec alone decides it
FORMATS = (1, 2, 3)  # raised where the meaning of a spec has changed, so that old and new features never mix; see extract.fit.with_format


@dataclass(frozen=True)
class DecodeSpec(Checked):
    """From file to frames: every frame that decodes, in display order, rotated upright, RGB uint8.

    Folders of frames count as 25 frames per second. ``extract.video_damage`` says which videos are damaged.
    """

    fps: float = setting(0.0, "resample to this frame rate (nearest frame in time); 0 keeps the video's own frames")
    partial: bool = setting(False, "take the frames that decode of a video that is cut short or damaged, instead of refusing it")

    def check(self) -> None:
        demand(0 <= self.fps <= 1000, f"decode.fps is {self.fps:g}; it must be 0 (the video's own frames) or a rate of at most 1000")


@dataclass(frozen=True)
class ClipSpec(Checked):
    """From frames to clips; ``extract.clips`` states the rules for short videos and tails."""

    rule: Literal["sliding", "segments", "every", "looped", "spread"] = setting(
        "segments",
        "sliding: windows in time; segments: the centre of each of SEGMENTS equal parts; every: one clip every STRIDE frames; "
        "looped: sliding, a short video repeated until one clip is full; spread: one clip, the centres of LENGTH equal parts",
    )
    length: int = setting(0, "frames in a clip; 0: as the network was trained, one for frame-wise networks")
    step: int = setting(1, "from each frame of a clip to the next (not for rule spread)")
    stride: int = setting(1, "frames between the starts of neighbouring clips (rules sliding, every and looped)")
    segments: int = setting(25, "number of clips (rule segments)")
    max_clips: int = setting(0, "keep at most the first so many clips of a video; 0 keeps all")
    pool: Literal["mean", "none"] = setting(
        "mean", "frame-wise networks with clips longer than one frame: mean over a clip's frames, or none to keep [frames, width]"
    )

    def check(self) -> None:
        for name in ("step", "stride", "segments"):
            demand(1 <= getattr(self, name) <= LARGEST, f"clips.{name} is {getattr(self, name)}; it must be from 1 to {LARGEST}")
        for name, zero in (("length", "as the network was trained"), ("max_clips", "no limit")):
            demand(getattr(self, name) >= 0, f"clips.{name} is {getattr(self, name)}; it must be 0 ({zero}) or positive")
        demand(self.length <= 1024, f"clips.length is {self.length}; it must be at most 1024")
        frames = self.segments * max(1, self.length)
        demand(frames <= LARGEST, f"clips.segments is {self.segments}; that makes {frames} frames, and the clips of a video hold {LARGEST}")


@dataclass(frozen=True)
class CropSpec(Checked):
    """From frames to network inputs, on the device: resize, then cut one or ten crops."""

    resize: tuple[int, ...] = setting(
        (), "short side in pixels (one number), or width and height (two numbers); none: as the network was trained"
    )
    size: int = setting(0, "side of the square crop in pixels; 0: as the network was trained")
    count: int = setting(1, "1: the centre; 10: four corners, centre, and their mirrors (torchvision's TenCrop order)")
    keep: bool = setting(False, "keep every crop's features instead of their mean")

    def check(self) -> None:
        demand(len(self.resize) <= 2, f"crops.resize has {len(self.resize)} numbers; give a short side or width and height")
        demand(self.count in (1, 10), f"crops.count is {self.count}; it must be 1 or 10")
        demand(0 <= self.size <= LARGEST_SIDE, f"crops.size is {self.size}; it must be from 1 to {LARGEST_SIDE}, or 0 (as trained)")
        sides = all(1 <= side <= LARGEST_SIDE for side in self.resize)
        demand(sides, f"crops.resize is {list(self.resize)}; sides must be from 1 to {LARGEST_SIDE}")
        demand(
            min(self.resize, default=self.size) >= self.size,
            f"crops.size is {self.size} but crops.resize is {list(self.resize)}: a crop must fit into the resized frame",
        )


@dataclass(frozen=True)
class FlowSpec(Checked):
    """Optical flow instead of RGB, or beside it; ``method = ""`` means the RGB stream.

    The flow of frame i is the motion from frame i to frame i+1; a frame before the first or past the last flow repeats that one; a video
    of one frame has zero flow. ``extract.flow_bytes`` states how flow becomes bytes, ``extract.modality`` how many channels a spec gives.

    ``pairs`` N > 1 stacks the flows i + offset, ..., i + offset + N - 1 for frame i, as channels x, y, x, y, ... With offset 0 the stack
    begins at the frame, as in temporal segment networks and two-stream networks; ST-ResNet's ten flows are centred on it, offset -5.
    """

    method: str = setting("", "dense optical flow method, e.g. dis; files for flow that another tool computed; empty for RGB")
    params: dict[str, float] = field(
        default_factory=dict, metadata={"help": "the method's own parameters; unset ones take the method's defaults and are recorded"}
    )
    version: str = setting("", "version of the method's implementation; filled in when the spec is resolved")
    origin: str = setting("", "method files: which tool, method and settings computed the flow, in your words")
    bound: float = setting(20.0, "displacement in pixels that maps to the ends of the 8-bit range; larger ones are clipped")
    short_side: int = setting(256, "resize frames to this short side before computing flow; 0 keeps their size")
    encoding: Literal["image", "pairs"] = setting(
        "image",
        "image: x, y and magnitude as three 8-bit channels, for networks trained on RGB; pairs: stacked x, y, x, y, ..., for networks "
        "trained on flow",
    )
    pairs: int = setting(1, "flow fields of one frame (encoding pairs): 1 for I3D, 5 for TSN, 10 for two-stream networks and ST-ResNet")
    offset: int = setting(0, "first flow of a stack, counted from its frame (encoding pairs): 0 begins at the frame, -5 centres ten on it")
    quantise: Literal["", "symmetric", "dense_flow", "i3d"] = setting(
        "", "how flow becomes bytes; none given: as for the network's training, symmetric where flow is drawn as an image"
    )
    with_rgb: bool = setting(False, "the frame's RGB before its stack, both at the flow's size (encoding pairs), for ST-ResNet")

    def check(self) -> None:
        demand(
            (self.method == FLOW_FILES) == bool(self.origin),
            f"flow.method is {self.method!r} and flow.origin {self.origin!r}: flow from files needs its origin in words, "
            'e.g. --flow.origin "TV-L1, dense_flow, bound 20", and no other flow has one',
        )
        demand(self.bound > 0, f"flow.bound is {self.bound}; it must be positive")
        demand(
            0 <= self.short_side <= LARGEST_SIDE, f"flow.short_side is {self.short_side}; it must be 0 (as decoded) or up to {LARGEST_SIDE}"
        )
        demand(self.pairs >= 1, f"flow.pairs is {self.pairs}; it must be at least 1")
        demand(
            -self.pairs <= self.offset <= 0,
            f"flow.offset is {self.offset}; it must be from {-self.pairs} (all flows before the frame) to 0 (from the frame on)",
        )
        stacked = [name for name, given in (("pairs", self.pairs > 1), ("offset", self.offset), ("with_rgb", self.with_rgb)) if given]
        demand(
            self.encoding == "pairs" or not stacked,
            f"flow.encoding is {self.encoding}, which has no flow.{' and no flow.'.join(stacked)}; set --flow.encoding pairs",
        )


@dataclass(frozen=True)
class FeatureSpec(Checked):
    """Everything that decides a feature's value. Two different specs can never share a store."""

    backbone: str = setting("tiny", "network, see `actioncache backbones`")
    levels: tuple[str, ...] = setting((), "levels to store, all from one forward pass; none given: the network's default level")
    weights: str = setting("", "identity of the weights, filled in from --weights: sha256:<digits> or random:<seed>:<digits>")
    decode: DecodeSpec = field(default_factory=DecodeSpec)
    clips: ClipSpec = field(default_factory=ClipSpec)
    crops: CropSpec = field(default_factory=CropSpec)
    flow: FlowSpec = field(default_factory=FlowSpec)
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", "arithmetic of the network")
    channels_last: bool = setting(False, "memory layout of the network; changes the last bits, and speed")
    fold_bn: bool = setting(False, "fold batch normalisation into the convolutions before it; changes the last bits, and speed")
    compile: bool = setting(False, "compile the network with torch.compile, which takes minutes at first; changes the last bits, and speed")
    dtype: Literal["float16", "float32"] = setting("float16", "type of the stored features")
    format: int = setting(FORMATS[0], "meaning of this spec; set by the program")

    def check(self) -> None:
        demand(bool(self.backbone), "backbone is empty; choose one, see `actioncache backbones`")
        demand(len(set(self.levels)) == len(self.levels), f"levels {list(self.levels)} names one level twice")
        demand(
            self.format in FORMATS, f"this spec has format {self.format}; this version of actioncache writes formats up to {FORMATS[-1]}"
        )


@dataclass(frozen=True)
class RunOptions(Checked):
    """How an extraction runs. Nothing here changes a feature, except that device, batch size and mixing may change its last bits, and a
    device of another kind some thousandth of it (``extract.passes``).

    A store notes what its features were begun with (``extract.passes``).
    """

    device: str = setting("auto", "torch device; auto takes CUDA where there is one, else the CPU")
    batch_size: int = setting(
        0,
        "images (frames x crops) in a forward pass; for clip networks, clips x crops; 0: what suits device and network, or what the store "
        "was begun with; another number may change the last bits of a feature",
    )
    mixed: Literal["auto", "yes", "no"] = setting(
        "auto", "fill forward passes with clips of several videos; auto: on CUDA, where a pass of one video's clips is too small"
    )
    workers: int = setting(0, "decoding processes; 0 takes the number of processors, at most 8")
    timeout_seconds: float = setting(120.0, "a decoder silent for so long is stopped and its video recorded as failed")
    tries: int = setting(2, "how often a video may kill its decoding process before it is recorded as failed")
    job_tries: int = setting(
        3, "how often a whole job may be killed while at a video, from the second time on at it alone, before that is recorded as failed"
    )
    publish_seconds: float = setting(30.0, "finished videos wait at most about so long in memory; a crash costs no more work than that")
    flow_root: str = setting("", "folder of flow that another tool computed (flow.method files); none given: each video's own folder")
    flow_weights: str = setting("", "weights of a flow method that is a network: a file, published, published:NAME or random:SEED")
    flow_on: Literal["auto", "workers", "device"] = setting(
        "auto",
        "where flow is computed: in the decoding processes, or in this one on the network's device; auto: there for tvl1 and raft on CUDA",
    )
    any_device: bool = setting(
        False, "also go on with a store that was begun on a device which resizes frames otherwise, so that features differ by about 1e-3"
    )
    retry_failed: bool = setting(False, "also try videos again whose failure is recorded and whose file has not changed")

    def check(self) -> None:
        demand(self.tries >= 1, f"tries is {self.tries}; it must be at least 1")
        demand(
            self.job_tries >= 2, f"job_tries is {self.job_tries}; it must be at least 2: a job has several videos in work, and one kills it"
        )
        ranges = (("batch_size", MOST_IMAGES, "what suits device and network"), ("workers", MOST_WORKERS, "one a processor"))
        for name, most, zero in ranges:
            demand(0 <= getattr(self, name) <= most, f"{name} is {getattr(self, name)}; it must be 0 ({zero}) or from 1 to {most}")
        demand(self.timeout_seconds > 0, f"timeout_seconds is {self.timeout_seconds}; it must be positive")
        demand(self.publish_seconds >= 0, f"publish_seconds is {self.publish_seconds}; it must be 0 (publish every video) or positive")
