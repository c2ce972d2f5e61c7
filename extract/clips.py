"""Which frames make up each clip: pure index arithmetic.

For l frames, clips of s frames and stride r (``x // y`` is the floor of x / y):

=========  ==========================================  =========================================================
rule       clips                                       starts
=========  ==========================================  =========================================================
sliding    K = (l - s) // r + 1, at least 1            0, r, 2r, ...; frames at the end that fill no clip are dropped
looped     as sliding                                  as sliding
every      K = (l - 1) // r + 1                        0, r, 2r, ...; one clip at every r-th frame, to the end
segments   T, always                                   (2t + 1) (l - s + 1) // (2T), t = 0..T-1
spread     1                                           its frames are (2i + 1) l // (2s), i = 0..s-1
=========  ==========================================  =========================================================

Frames of a clip are ``step`` apart; where that is d > 1, a clip reaches over (s - 1) d + 1 frames, which then stands for s in the table.

``sliding`` is the paper's K for s = 2r (Lakhal et al. 2018). ``segments`` are the centres of T equal parts of all possible starts, which
for s = 1 are the centre frames of T equal parts of the video: TSN's sampling at test time (Wang et al. 2016), in integers.

Stacks of flow that begin at their frame (``FlowSpec.pairs`` N > 1, ``offset`` 0) are sampled as TSN does, too: the possible starts of
``segments`` are those from which every stack is whole, so of l - 1 flows (2t + 1) (l - 1 - (s - 1) - N + 1) // (2T).

A clip that needs frames past the end repeats the last frame: so a short video becomes still at its end, which adds no motion that never
was. The rule ``looped`` repeats the video instead (frame i mod l), as the 30-frame clips of Zheng et al. 2017. Every rule gives at least
one clip for every video of at least one frame.
"""

import numpy as np

from extract.spec import ClipSpec, FlowSpec


def clip_indices(num_frames: int, spec: ClipSpec, flow: FlowSpec | None = None) -> np.ndarray:
    """Frame indices of every clip: int64 [N, T], N >= 1, T = ``spec.length`` (1 for 0), values in [0, num_frames), starts ascending.

    ``flow`` says what is stacked on the frames, if anything is.

    Raises ``ValueError`` when ``num_frames`` is less than 1.
    """
    if num_frames < 1:
        raise ValueError(f"a video has {num_frames} frames; clips need at least one")
    length = spec.length or 1
    if spec.rule == "spread":
        return (2 * np.arange(length, dtype=np.int64) + 1)[None] * num_frames // (2 * length)
    indices = clip_starts(num_frames, spec, flow)[:, None] + spec.step * np.arange(length)
    return indices % num_frames if spec.rule == "looped" else np.minimum(indices, num_frames - 1)


def clip_starts(num_frames: int, spec: ClipSpec, flow: FlowSpec | None = None) -> np.ndarray:
    """First frame of every clip: int64 [N], ascending, at most ``spec.max_clips`` where that is set."""
    reach = ((spec.length or 1) - 1) * spec.step + 1
    possible = max(1, num_frames - reach + 1)  # starts from which a whole clip fits, or the only one there is
    if spec.rule == "segments":
        if flow is not None and stacked_ahead(flow):
            possible = max(1, num_frames - 1 - (reach - 1) - flow.pairs + 1)
        starts = (2 * np.arange(spec.segments) + 1) * possible // (2 * spec.segments)
    else:
        starts = np.arange(0, num_frames if spec.rule == "every" else possible, spec.stride)
    return starts[: spec.max_clips or None].astype(np.int64)


def stacked_ahead(flow: FlowSpec) -> bool:
    """Whether a frame's input is a stack of the flows from it on."""
    return bool(flow.method) and flow.pairs > 1 and flow.offset == 0


def frame_spans(indices: np.ndarray) -> np.ndarray:
    """First frame and one past the last frame that each clip uses: int64 [N, 2]. A looped clip spans the whole video."""
    return np.stack([indices.min(1), indices.max(1) + 1], 1)


def time_spans(indices: np.ndarray, times: np.ndarray, end: float) -> np.ndarray:
    """When each clip's span begins and ends, float64 [N, 2] in seconds since the first frame.

    ``times`` float64 [num_frames] are the frames' time stamps, ``end`` the end of the last frame; a clip ends when the frame after it
    begins.
    """
    return np.append(times, end)[frame_spans(indices)]
