"""When each imported row was: frame spans and times from what lies beside the features, or by arithmetic (docs/exchange.md)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from store.digest import demand
from store.errors import FeatureError
from store.exchange.spec import TimingSpec

Carried = Mapping[str, np.ndarray]


def resolve(timing: TimingSpec, carried: Carried) -> TimingSpec:
    """The timing without ``auto``, for sources that carry what the first video carries; ``SpecError`` for settings left without use."""
    stamps = _has_stamps(timing, carried)
    frames, times = timing.frames, timing.times
    if frames == "auto":
        known = "frames" in carried or "first" in carried or (stamps and bool(timing.fps or "fps" in carried))
        frames = "stride" if timing.stride else "files" if known else "rows"
    if times == "auto":
        marked = frames != "stride" and ("times" in carried or stamps)
        counted = frames != "rows" and "fps" in carried
        times = "files" if marked else "fps" if timing.fps and frames != "rows" else "files" if counted else "rows"
    length = timing.length or (timing.stride if frames == "stride" else 0)
    resolved = replace(timing, frames=frames, times=times, length=length)
    unknown = frames == "rows" and times != "files"
    for name in ("length", "fps"):
        demand(
            not (unknown and getattr(timing, name)),
            f"timing.{name} is {getattr(timing, name)}, but the first video says nothing of its frames; give --timing.stride too",
        )
    return resolved


def spans(rows: int, timing: TimingSpec, carried: Carried) -> tuple[np.ndarray, np.ndarray]:
    """Frame spans int64 [N, 2] and times float64 [N, 2] in seconds of a video with N rows, by a resolved timing.

    Raises ``FeatureError`` where the files lack what the timing says they have, or contradict it.
    """
    stamps = _seconds(rows, timing, carried) if _uses_stamps(timing, carried) else None
    frames = _frames(rows, timing, carried, stamps)
    return frames, _times(rows, timing, carried, stamps, frames)


def _frames(rows: int, timing: TimingSpec, carried: Carried, stamps: np.ndarray | None) -> np.ndarray:
    if timing.frames == "rows":
        return _counted(0, 1, 1, rows)
    if timing.frames == "stride":
        return _counted(timing.start, timing.stride, timing.length, rows)
    if "frames" in carried:
        return _pairs("frames", carried["frames"], rows, "iu").astype(np.int64)
    if "first" in carried:
        first = carried["first"].astype(np.int64)
        return np.stack([first, first + max(timing.length, 1)], 1)
    if stamps is None:
        raise FeatureError("nothing beside the features says which frames its rows are, as it does for others (timing.frames files)")
    found = np.rint(stamps * _rate(timing, carried)).astype(np.int64)
    return np.stack([found[:, 0], found[:, 0] + timing.length], 1) if timing.length else found


def _times(rows: int, timing: TimingSpec, carried: Carried, stamps: np.ndarray | None, frames: np.ndarray) -> np.ndarray:
    if timing.times == "rows":
        return _counted(0, 1, 1, rows).astype(np.float64)
    if timing.times == "fps":
        return frames / timing.fps
    if timing.frames != "stride" and "times" in carried:
        return _pairs("times", carried["times"], rows, "f").astype(np.float64)
    if stamps is not None:
        return stamps
    if "fps" in carried and timing.frames != "rows":
        return frames / _rate(timing, carried)
    raise FeatureError("nothing beside the features says when its rows were, as it does for others (timing.times files)")


def _has_stamps(timing: TimingSpec, carried: Carried) -> bool:
    return "timestamps_ms" in carried and timing.stamps != "ignore"


def _uses_stamps(timing: TimingSpec, carried: Carried) -> bool:
    asked = timing.frames == "files" and "frames" not in carried and "first" not in carried
    asked = asked or (timing.times == "files" and timing.frames != "stride" and "times" not in carried)
    return asked and _has_stamps(timing, carried)


def _counted(start: int, stride: int, length: int, rows: int) -> np.ndarray:
    first = start + stride * np.arange(rows, dtype=np.int64)
    return np.stack([first, first + length], 1)


def _pairs(name: str, array: np.ndarray, rows: int, kinds: str) -> np.ndarray:
    if array.shape != (rows, 2) or array.dtype.kind not in kinds:
        wanted = "whole numbers" if kinds == "iu" else "floating-point numbers"
        raise FeatureError(
            f"{name} is {array.dtype} {list(array.shape)}; beside {rows} rows of features it must be {wanted} [{rows}, 2] "
            f"(--timing.{name} rows leaves it aside)"
        )
    return array


def _rate(timing: TimingSpec, carried: Carried) -> float:
    if timing.fps:
        return timing.fps
    rate = carried.get("fps")
    if rate is None:
        raise FeatureError("nothing beside the features says how many frames a second has; give --timing.fps")
    if rate.size != 1 or rate.dtype.kind not in "fiu" or not 0 < float(rate.reshape(())) < np.inf:
        raise FeatureError(f"fps is {rate.tolist() if rate.size < 8 else list(rate.shape)}; it must be one positive number")
    return float(rate.reshape(()))


def _seconds(rows: int, timing: TimingSpec, carried: Carried) -> np.ndarray:
    """Begin and end of each row, float64 [N, 2], from one time stamp a row; stamps that contradict ``timing.stamps`` are refused."""
    stamps = carried["timestamps_ms"]
    if stamps.shape != (rows,) or stamps.dtype.kind not in "fiu":
        raise FeatureError(f"timestamps_ms is {stamps.dtype} {list(stamps.shape)}; beside {rows} rows it must be numbers [{rows}]")
    stamps = stamps.astype(np.float64) / 1000
    if not np.isfinite(stamps).all() or (np.diff(stamps) < 0).any() or stamps[0] < 0:
        raise FeatureError("timestamps_ms are not times in ascending order from 0 on; --timing.stamps ignore leaves them aside")
    length = timing.length / _rate(timing, carried) if timing.length else 0.0
    frame = 1 / _rate(timing, carried) if timing.fps or "fps" in carried else 0.0
    step = float(np.median(np.diff(stamps))) if rows > 1 else length or frame
    if timing.stamps == "end":
        return _until(stamps, length)
    if stamps[0] > 0 and stamps[0] >= max(step, length) * (1 - 1e-6):
        raise FeatureError(
            f"the first time stamp is {stamps[0] * 1000:g} ms, which looks like the end of the first row; say --timing.stamps end "
            "(and --timing.length, the frames of a clip), or ignore"
        )
    ends = stamps + length if length else np.append(stamps[1:], stamps[-1] + step)
    return np.stack([stamps, ends], 1)


def _until(stamps: np.ndarray, length: float) -> np.ndarray:
    if not length:
        return np.stack([np.append(0.0, stamps[:-1]), stamps], 1)
    if stamps[0] < length * 0.5:
        raise FeatureError(
            f"the first time stamp is {stamps[0] * 1000:g} ms, but a row lasts {length * 1000:g} ms, so it is not the row's end; "
            "say --timing.stamps start"
        )
    return np.stack([np.maximum(stamps - length, 0), stamps], 1)
