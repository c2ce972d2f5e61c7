"""Stage one: a list of videos becomes features in a store."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from extract.backbones import Backbone
from extract.device import resolve_device
from extract.engine import Extraction, make_network
from extract.passes import as_before, note_passes
from extract.publish import Publisher
from extract.spec import FeatureSpec, RunOptions
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
    todo, skipped, known = outstanding(videos, store, options.retry_failed)
    network = make_network(backbone, spec, as_before(options, store.path, resolve_device(options.device)))
    told = note_passes(network, store.path) if todo else ()
    for note in told:  # now, and not only in the summary hours later
        print(f"note: {note}", file=sys.stderr, flush=True)
    writer = store.writer(part, max_seconds=options.publish_seconds)
    with writer, Publisher(writer) as publisher, Progress("extract", len(todo)) as progress:
        job = Extraction(network, publisher, progress)
        job.run(todo, options, stopped)
    total = network.watch.total
    seconds = {**network.watch.seconds, "publish": publisher.seconds, "total": total}
    if left := len(todo) - len(job.done) - len(job.failed):
        raise Interrupted(
            f"interrupted with {left} of {len(videos)} videos left; all finished ones are in {store.path}; run the command again"
        )
    damaged = {name: str(error) for name, error in sorted(store.damaged.items())}
    busy = min(1.0, network.device.busy_seconds() / total)
    return Summary(len(job.done), skipped, {**known, **job.failed}, damaged, seconds, job.clips, busy, told)


def outstanding(videos: VideoList, store: FeatureStore, retry_failed: bool) -> tuple[list[Video], int, dict[str, tuple[str, str]]]:
    """Split a list by what the store knows: videos to do, the number that is there, and ``{id: (stage, reason)}`` recorded as failed.

    A failed video whose file has changed since is to do again.
    """
    missing = set(store.missing(videos.ids))
    failures = {} if retry_failed else store.failures()
    known = {
        video.id: (failures[video.id].stage, failures[video.id].reason)
        for video in videos
        if video.id in missing and video.id in failures and failures[video.id].is_current(video.path)
    }
    todo = [video for video in videos if video.id in missing and video.id not in known]
    return todo, len(videos) - len(missing), known
