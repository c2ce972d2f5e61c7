"""What ``actioncache store diff`` prints: a ``Diff`` in words, or in JSON's types."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from store.diff import Diff, LevelDifference, VideoDifference
from store.distance import Distance


def text(found: Diff, listed: int) -> str:
    """A ``Diff`` in words, at most ``listed`` videos a list."""
    lines = [f"{side}  {store.path}: {len(store):,} videos" for side, store in zip("AB", found.stores, strict=True)]
    lines += [f"spec: {key} is {ours} in A, {theirs} in B" for key, (ours, theirs) in found.specs.items()]
    lines += [] if found.specs else ["spec: the same"]
    for side, names, ids in zip("AB", found.levels_only, found.videos_only, strict=True):
        lines += [f"only in {side}: level {name}" for name in names]
        lines += [f"only in {side}: {len(ids):,} videos: {_some(ids, listed)}"] if ids else []
    lines += [f"level {name} cannot be compared: {ours} in A, {theirs} in B" for name, (ours, theirs) in found.row_shapes.items()]
    lines += [_level(name, level) for name, level in found.levels.items() if level.videos]
    lines += [_video(one) for one in found.worst[:listed]]
    lines += [f"unreadable {video_id}: {reason}" for video_id, reason in list(found.unreadable.items())[: max(listed, 1)]]
    return "\n".join([*lines, _last(found)])


def plain(found: Diff) -> dict[str, Any]:
    """A ``Diff`` in JSON's types; what is infinite is null."""
    levels = {
        name: {
            "types": [str(level.first), str(level.second)],
            "videos": level.videos,
            **_distance(level.distance()),
            "relative_max": _finite(level.relative_max),
            "worst": level.worst,
        }
        for name, level in found.levels.items()
    }
    sides = {
        side: {"path": str(store.path), "digest": store.digest, "videos": len(store), "levels_only": names, "videos_only": ids}
        for side, store, names, ids in zip("ab", found.stores, found.levels_only, found.videos_only, strict=True)
    }
    counts = {name: getattr(found, name) for name in ("identical", "equal", "different", "other_rows", "other_spans")}
    return {
        "same": found.same,
        "tolerance": found.tolerance,
        **sides,
        "specs": found.specs,
        **counts,
        "unreadable": found.unreadable,
        "row_shapes": found.row_shapes,
        "levels": levels,
        "worst": [_plain_video(one) for one in found.worst],
    }


def _plain_video(one: VideoDifference) -> dict[str, Any]:
    levels = {name: _distance(distance) for name, distance in one.levels.items()}
    return {"id": one.id, "rows": one.rows, "frames_differ": one.frames, "seconds_apart": _finite(one.seconds), "levels": levels}


def _distance(distance: Distance) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in asdict(distance).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _level(name: str, level: LevelDifference) -> str:
    worst = {measure: f" in {video_id}" for measure, video_id in level.worst.items()}
    types = " and ".join(dict.fromkeys((str(level.first), str(level.second))))
    one = level.distance()
    return (
        f"level {name} ({types}): {level.videos:,} videos, {one.rows:,} rows with other digests\n"
        f"    |A - B|          max {one.max_abs:.3g}{worst.get('max_abs', '')}, mean {one.mean_abs:.3g}\n"
        f"    ||A - B||/||B||  all {one.relative:.3g}, max {level.relative_max:.3g}{worst.get('relative', '')}\n"
        f"    cosine of rows   mean {_cosine(one.cosine_mean)}, min {_cosine(one.cosine_min)}{worst.get('cosine', '')}"
    )


def _video(one: VideoDifference) -> str:
    if one.rows[0] != one.rows[1]:
        return f"{one.id}: {one.rows[0]} rows in A, {one.rows[1]} in B"
    parts = [
        f"{name} max {distance.max_abs:.3g}, relative {distance.relative:.3g}, cosine min {_cosine(distance.cosine_min)}"
        for name, distance in one.levels.items()
    ]
    parts += ["other frames"] if one.frames else []
    parts += [f"times {one.seconds:.3g} s apart"] if one.seconds else []
    return f"{one.id}: " + "; ".join(parts)


def _cosine(cosine: float) -> str:
    return f"1 - {1 - cosine:.1e}" if 0 < 1 - cosine < 1e-4 else f"{cosine:.5f}"


def _some(ids: Sequence[str], listed: int) -> str:
    more = [f"{len(ids) - listed:,} more"] if len(ids) > listed else []
    return ", ".join([*ids[:listed], *more])


def _last(found: Diff) -> str:
    parts = [f"{found.identical:,} videos identical"]
    parts += [f"{found.equal:,} equal within tolerance {found.tolerance:g}"] if found.equal else []
    parts += [f"{found.different:,} different"]
    of_these = [(found.other_rows, "in the number of rows"), (found.other_spans, "in frames or times")]
    told = ", ".join(f"{count:,} {what}" for count, what in of_these if count)
    parts[-1] += f" ({told})" if told else ""
    parts += [f"{len(found.unreadable):,} unreadable (run `actioncache store repair`)"] if found.unreadable else []
    return ", ".join(parts)
