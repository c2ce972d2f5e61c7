"""What a trained run is: sequence, head and training settings as frozen self-checking dataclasses, without torch.

Nothing that only changes speed (device, parallel jobs) is in here.
"""

from dataclasses import dataclass, field
from typing import Literal

from store.digest import Checked, demand, setting
from temporal.params import Value, head_help, head_info, params_help

FORMAT = 2  # raised when the meaning of a spec changes, so that old and new runs never mix
LARGEST_COUNT = 10**6  # of epochs, of videos in a batch
MOST_LAYERS = 1000  # more would fill the memory with modules before anything could count their weights


@dataclass(frozen=True)
class SequenceSpec(Checked):
    """From the cached features of a video to sequences [steps, width]: its samples, each of which is trained on with the video's label.

    Where a video has several samples its class probabilities are the mean of its samples' (PAPERS B, C); validation counts videos, too.
    """

    level: str = setting("", "level of the features to read; may be left out where the store has one level only")
    inner: Literal["refuse", "mean"] = setting(
        "refuse",
        "features with several vectors a clip (crops or frames kept, [clips, n, width]): refuse them, or take their mean in float32",
    )
    samples: Literal["video", "clips", "windows"] = setting(
        "video",
        "video: one sequence of a video's clips; clips: every clip is one, of its frames (features [clips, frames, width]); windows: "
        "pieces of WINDOW clips, every STRIDE clips",
    )
    window: int = setting(16, "clips in a window (samples windows); a shorter video is one window")
    stride: int = setting(16, "clips between the starts of neighbouring windows (samples windows)")
    mid: Literal["none", "sum", "product"] = setting("none", "mid fusion of two stores, element by element, before the projection")
    sampling: Literal["sigma", "all"] = setting(
        "sigma",
        "sigma: STEPS of a sample's K clips (or frames), sigma(t) = 1 + floor((t-1)(K-1)/(T-1)), short ones repeat; all: every one",
    )
    steps: int = setting(25, "length T of a sequence (sampling sigma)")
    znorm: bool = setting(False, "Z-normalise each feature with mean and deviation of the training part, before any PCA")
    projection: Literal["none", "pca"] = setting("none", "pca: principal components of the training part's features")
    width: int = setting(256, "number of principal components d_m (projection pca)")

    def check(self) -> None:
        for name in ("window", "stride", "steps", "width"):
            demand(getattr(self, name) >= 1, f"sequence.{name} is {getattr(self, name)}; it must be at least 1")
        demand(
            self.samples != "clips" or self.inner == "refuse",
            "sequence.samples is clips, which keeps the frames of a clip, but sequence.inner is mean; set one of them only",
        )


class _Params(dict[str, Value]):
    """Settings of the head ``of``, every one with its value."""

    def __init__(self, of: str, values: dict[str, Value]) -> None:
        super().__init__(values)
        self.of = of


@dataclass(frozen=True)
class HeadSpec(Checked):
    """From a sequence to class scores; `actioncache heads` tells of each head and its own settings."""

    name: str = setting("gru", head_help)
    params: dict[str, Value] = field(default_factory=dict, metadata={"help": params_help})
    hidden: int = setting(128, "hidden units H of each recurrent layer")
    layers: int = setting(0, "recurrent layers L; 0: what is usual for the head, 2 for residual stacks and 1 for others")
    output: Literal["last", "mean", "max"] = setting(
        "mean", "recurrent heads: class scores from the last step's memory, or mean or max of all steps' class scores"
    )
    dropout: float = setting(0.5, "dropout on the input of the classifier while training")
    weights: str = setting("", "identity of the pretrained weights, filled in from --head-weights: sha256:<digits>")

    def __post_init__(self) -> None:
        if isinstance(self.params, _Params) and self.params.of != self.name:  # replace(spec, name=...) hands on those of another head
            object.__setattr__(self, "params", {})
        super().__post_init__()

    def check(self) -> None:
        info = head_info(self.name)
        object.__setattr__(self, "params", _Params(self.name, info.resolve(self.params)))  # with defaults, so that they are in the digest
        demand(info.weights or not self.weights, f"head {self.name} takes no pretrained weights; leave --head-weights out")
        demand(self.hidden >= 1, f"head.hidden is {self.hidden}; it must be at least 1")
        demand(self.layers >= 0, f"head.layers is {self.layers}; it must be at least 1, or 0 (what is usual for the head)")
        demand(self.layers <= MOST_LAYERS, f"head.layers is {self.layers}; it must be at most {MOST_LAYERS}")
        object.__setattr__(self, "layers", self.layers or info.layers)
        demand(0 <= self.dropout < 1, f"head.dropout is {self.dropout}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class TrainSpec(Checked):
    """How the head is fitted: softmax cross-entropy per sequence; ``temporal.schedule`` has the rate of every step."""

    optimizer: Literal["rmsprop", "adam", "adamw", "sgd"] = setting("adam", "update rule; sgd has momentum 0.9")
    learning_rate: float = setting(1e-3, "step size, before any decay")
    schedule: Literal["constant", "step", "cosine"] = setting(
        "constant", "learning rate over the epochs: constant; step: times DECAY after each of MILESTONES; cosine: falls to 0 over EPOCHS"
    )
    milestones: tuple[int, ...] = setting((), "epochs after which the rate is multiplied by DECAY (schedule step), e.g. 8,12")
    decay: float = setting(0.1, "factor at each milestone (schedule step)")
    warmup_epochs: float = setting(0.0, "the rate rises linearly to its full size over so many epochs, whatever the schedule")
    weight_decay: float = setting(0.0, "L2 penalty (adamw: decoupled decay)")
    batch_size: int = setting(32, "sequences a step")
    epochs: int = setting(100, "at most so many passes over the training part")
    validation: float = setting(
        0.15,
        "share of the training videos, in whole groups, that decides when to stop (unless the list has val videos); 0 trains all EPOCHS",
    )
    patience: int = setting(20, "stop after so many epochs without a lower validation loss; the best epoch's weights are kept")
    refit: bool = setting(False, "then train anew on training and validation part for the number of epochs found (validation 0: EPOCHS)")
    label_smoothing: float = setting(0.0, "share of a label's weight that is spread over all classes")
    gradient_clip: float = setting(5.0, "largest norm of the whole gradient; 0 does not limit it")
    precision: Literal["fp32", "bf16"] = setting("fp32", "arithmetic of the head while training; weights and optimizer stay float32")
    seed: int = setting(0, "of the initial weights, the validation part, the batches and the dropout")

    def check(self) -> None:
        demand(self.learning_rate > 0, f"train.learning_rate is {self.learning_rate}; it must be positive")
        for name in ("weight_decay", "gradient_clip"):
            demand(getattr(self, name) >= 0, f"train.{name} is {getattr(self, name)}; it must be 0 or positive")
        for name in ("batch_size", "epochs", "patience"):
            value = getattr(self, name)
            demand(1 <= value <= LARGEST_COUNT, f"train.{name} is {value}; it must be from 1 to {LARGEST_COUNT}")
        for name in ("validation", "label_smoothing"):
            demand(0 <= getattr(self, name) < 1, f"train.{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        demand(0 <= self.seed < 2**32, f"train.seed is {self.seed}; it must be at least 0 and below 2^32")
        self._check_schedule()

    def _check_schedule(self) -> None:
        steps, stones = self.schedule == "step", list(self.milestones)
        demand(steps == bool(stones), f"train.schedule is {self.schedule} and train.milestones {stones}: step has milestones, no other has")
        rising = stones == sorted(set(stones)) and all(stone >= 1 for stone in stones)
        demand(rising, f"train.milestones is {stones}; epochs are counted from 1 and rise")
        demand(0 < self.decay <= 1, f"train.decay is {self.decay}; it must be above 0 and at most 1")
        demand(self.warmup_epochs >= 0, f"train.warmup_epochs is {self.warmup_epochs}; it must be 0 or positive")


@dataclass(frozen=True)
class RunSpec(Checked):
    """Everything but the data that decides a run's weights."""

    sequence: SequenceSpec = field(default_factory=SequenceSpec)
    head: HeadSpec = field(default_factory=HeadSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    format: int = setting(FORMAT, "meaning of this spec; set by the program")

    def check(self) -> None:
        demand(
            self.format == FORMAT,
            f"this run has format {self.format}, but this version of actioncache reads and writes format {FORMAT}; train it again "
            "(with --force in its place), or use the version that made it",
        )
