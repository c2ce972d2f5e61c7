"""Stage one: a list of videos becomes features in a store."""

import itertools
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from extract.backbones import Backbone
from extract.device import resolve_device
from extract.engine import Extraction, make_extraction, run_together
from extract.lasting import stands
from extract.passes import as_before, note_passes
from extract.publish import Publisher
from extract.spec import FeatureSpec, RunOptions
from store.claims import Claims, is_untouched
from store.errors import Interrupted
from store.features import FeatureStore
from store.progress import Progress
from store.videos import Video, VideoList


@dataclass(frozen=True)
class Summary:
    """How an extraction ended: done + skipped + failed = the videos asked for.

    ``seconds`` are this process's, per stage: ``decode`` and ``store`` is time that it waited for decoders and the writer, ``crops`` and
    ``network`` that it computed or waited for the device, ``publish`` the writer's own time beside all that. ``busy`` is the share of
    ``total`` in which the device worked.
    """

    done: int
    skipped: int
    failed: dict[str, tuple[str, str]]  # id -> (stage, reason), failures recorded by earlier runs included
    damaged: dict[str, str] = field(default_factory=dict)  # shard -> why it cannot be used; its videos count as missing
    seconds: dict[str, float] = field(default_factory=dict)
    clips: int = 0
    busy: float = 0.0
    notes: tuple[str, ...] = ()  # what may not be meant, see ``extract.fit.notes`` and ``extract.passes``

    @property
    def asked(self) -> int:
        """Videos asked for."""
        return self.done + self.skipped + len(self.failed)


@dataclass(frozen=True)
class Prepared:
    """A store and what fills it: a resolved spec, and its network with weights, on the device."""

    spec: FeatureSpec
    backbone: Backbone
    store: FeatureStore


def extract_features(
    videos: VideoList,
    spec: FeatureSpec,
    store: FeatureStore,
    backbone: Backbone,
    options: RunOptions,
    part: str = "main",
    stopped: Callable[[], bool] = lambda: False,
) -> Summary:
    """Put the features of every video of the list that the store lacks into it.

    ``backbone`` is prepared (weights loaded, on the device) and ``spec`` resolved. A video that cannot be done is recorded as failed
    and the rest goes on. Raises ``Interrupted``, with everything complete published, once ``stopped()`` is true.
    """
    return extract_together(videos, [Prepared(spec, backbone, store)], options, part, stopped)[0]


def extract_together(
    videos: VideoList, streams: Sequence[Prepared], options: RunOptions, part: str = "main", stopped: Callable[[], bool] = lambda: False
) -> list[Summary]:
    """As ``extract_features``, for stores whose specs share ``FeatureSpec.decode``: a video is decoded once for all that lack it."""
    order = random.Random().sample(list(videos), len(videos))  # two jobs that are given one list meet as seldom as may be
    known = [outstanding(replace(videos, videos=tuple(order)), stream.store, options.retry_failed) for stream in streams]
    work: list[tuple[Extraction, list[Video]]] = []
    publishers: list[Publisher] = []
    claims: list[Claims] = []
    with ExitStack() as stack:
        for stream, (todo, _, _) in zip(streams, known, strict=True):
            claims.append(stack.enter_context(Claims(stream.store)))
            writer = stack.enter_context(stream.store.writer(part, max_seconds=options.publish_seconds, once=True, claims=claims[-1]))
            publishers.append(stack.enter_context(Publisher(writer)))
            as_noted = as_before(options, stream.store.path, resolve_device(options.device))
            beside = work[0][0] if work else None
            work.append((make_extraction(stream.backbone, stream.spec, as_noted, publishers[-1], beside), todo))
        told = [
            note_passes(job.network, stream.store.path, job.flow is not None, options.any_device, is_untouched(stream.store))
            if todo
            else ()
            for stream, (job, todo) in zip(streams, work, strict=True)
        ]
        for note in dict.fromkeys(itertools.chain(*told)):  # now, and not only in the summary hours later
            print(f"note: {note}", file=sys.stderr, flush=True)
        progress = stack.enter_context(Progress("extract", len({video.id for _, todo in work for video in todo})))
        run_together(work, progress, options, stopped, claims=claims)
    watch = work[0][0].network.watch
    total = watch.total
    busy = min(1.0, sum(job.network.device.busy_seconds() for job, _ in work) / total)
    if left := len(set().union(*(job.left for job, _ in work))):
        places = " and ".join(str(stream.store.path) for stream in streams)
        raise Interrupted(f"interrupted with {left} of {len(videos)} videos left; all finished ones are in {places}; run the command again")
    return [
        Summary(
            len(job.done),
            skipped + len(job.elsewhere),
            {**before, **job.failed},
            {name: str(error) for name, error in sorted(stream.store.damaged.items())},
            {**watch.seconds, "publish": publisher.seconds, "total": total},
            job.clips,
            busy,
            said,
        )
        for stream, (job, _), publisher, (_, skipped, before), said in zip(streams, work, publishers, known, told, strict=True)
    ]


def outstanding(videos: VideoList, store: FeatureStore, retry_failed: bool) -> tuple[list[Video], int, dict[str, tuple[str, str]]]:
    """Split a list by what the store knows: videos to do, the number that is there, and ``{id: (stage, reason)}`` recorded as failed.

    ``extract.lasting`` says which failed videos are to do again.
    """
    missing = set(store.missing(videos.ids))
    failures = {} if retry_failed else store.failures()
    known = {
        video.id: (failures[video.id].stage, failures[video.id].reason)
        for video in videos
        if video.id in missing and video.id in failures and stands(failures[video.id], video.path, store.spec)
    }
    todo = [video for video in videos if video.id in missing and video.id not in known]
    return todo, len(videos) - len(missing), known
