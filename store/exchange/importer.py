"""Features of other tools become a store: what is there is compared, what is missing is added, what cannot be read is recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from store.digest import to_plain
from store.errors import FeatureError, Interrupted, PipelineError, SpecError, StoreError
from store.exchange import LAYOUTS
from store.exchange.files import words
from store.exchange.layout import Item, Reader, Source
from store.exchange.naming import match
from store.exchange.rows import to_rows
from store.exchange.spec import ImportSpec
from store.exchange.timing import resolve, spans
from store.features import FeatureStore
from store.layout import Features, checked
from store.progress import Progress
from store.shard_writer import Entry
from store.video_list import VideoList, some
from store.writer import FeatureWriter

STAGE = "import"  # of a recorded failure
NOT_READ = (PipelineError, OSError, MemoryError)  # what may be wrong with one video's files


@dataclass(frozen=True)
class ImportSummary:
    """How an import ended: done + there + failed = the videos found (with a list: those of them that it names)."""

    done: int
    there: int  # in the store already, with equal values
    failed: dict[str, str]  # id -> reason
    missing: list[str] = field(default_factory=list)  # of the list, neither found nor in the store
    rounded: int = 0  # videos with values that the stored type cannot hold exactly
    notes: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)  # shard -> why it cannot be used

    @property
    def found(self) -> int:
        """Videos found."""
        return self.done + self.there + len(self.failed)


@dataclass(frozen=True)
class ImportOptions:
    """How an import runs; nothing here decides a value. ``compare`` False trusts what is in the store instead of reading it again."""

    out: Path
    name: str = ""  # of the store; empty: the layout's
    videos: VideoList | None = None
    match: str = "path"
    compare: bool = True


def import_features(
    source: Source, spec: ImportSpec, options: ImportOptions, stopped: Callable[[], bool] = lambda: False
) -> tuple[Path, ImportSummary]:
    """Bring every video of ``source`` into the store of its spec; returns the store's folder and the summary.

    Raises ``PipelineError`` where nothing can be done at all, and ``Interrupted``, with everything finished published, once
    ``stopped()`` is true.
    """
    check_used(spec)
    spec = replace(spec, keys=tuple(sorted(spec.keys)))  # two orders are one store
    with LAYOUTS.get(spec.layout)().open(source, spec) as reader:
        items, missing, notes = _chosen(reader, options)
        reader.spec = replace(reader.spec, timing=_timing(reader, items))
        store = FeatureStore.create(options.out, options.name or spec.layout, to_plain({"imported": reader.spec}))
        missing = store.missing(missing)
        job = _Import(reader, store, options.compare)
        with store.writer("import") as writer, Progress("import", len(items)) as progress:
            for item in items:
                if stopped():
                    break
                job.handle(item, writer, progress)
    if left := len(items) - job.handled:
        raise Interrupted(f"interrupted with {left} of {len(items)} videos left; all finished ones are in {store.path}; run it again")
    damaged = {name: str(error) for name, error in sorted(store.damaged.items())}
    return store.path, ImportSummary(job.done, job.there, job.failed, missing, job.rounded, notes, damaged)


class _Import:
    """One import under way."""

    def __init__(self, reader: Reader, store: FeatureStore, compare: bool) -> None:
        self.reader, self.store, self.compare = reader, store, compare
        self.done = self.there = self.rounded = 0
        self.failed: dict[str, str] = {}
        self._bytes = 0

    @property
    def handled(self) -> int:
        """Videos dealt with so far."""
        return self.done + self.there + len(self.failed)

    def handle(self, item: Item, writer: FeatureWriter, progress: Progress) -> None:
        """Bring one video into the store, compare it with what is there, or record why that failed."""
        known = item.id in self.store
        try:
            if known and not self.compare:
                self.there += 1
            else:
                self._take(item, known, writer)
        except FeatureError as error:  # anything else, such as a full disk, ends the import
            reason = self.failed[item.id] = words(error).removeprefix(f"{item.id}: ")
            if not known:
                writer.fail(item.id, STAGE, reason, item.path)
        writer.publish_due()
        progress.advance(note=f"{self._bytes / 1e6:,.0f} MB, {len(self.failed)} failed")

    def _take(self, item: Item, known: bool, writer: FeatureWriter) -> None:
        try:
            features, rounded = load(self.reader, item)
        except NOT_READ as error:
            raise FeatureError(words(error)) from None
        if known:
            self._compare(item.id, features)
            self.there += 1
        else:
            writer.add(item.id, features)
            self.done += 1
            self.rounded += rounded
        self._bytes += sum(array.nbytes for array in features.values.values())

    def _compare(self, video_id: str, features: Features) -> None:
        if Entry.of(video_id, checked(video_id, features)).digests != self.store.digests(video_id):
            raise FeatureError(
                f"is in {self.store.path} with other values or times, and stays as it is there; if the new ones are the right ones, "
                "import them under another --origin"
            )


def load(reader: Reader, item: Item) -> tuple[Features, bool]:
    """One video's features as the store takes them, and whether a value was rounded. ``PipelineError`` or ``OSError`` with the reason."""
    loaded = reader.read(item)
    values, rounded = {}, False
    for level, array in loaded.values.items():
        rows, inexact = to_rows(f"array {level}", array, reader.spec)
        values[level] = reader.accept(level, rows)
        rounded |= inexact
    counts = {level: len(rows) for level, rows in values.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{level} has {count}" for level, count in counts.items())
        raise FeatureError(f"its levels have different numbers of rows: {told}; import them one at a time (--keys), as stores of their own")
    frames, times = spans(next(iter(counts.values())), reader.spec.timing, loaded.timing)
    return Features(values, frames, times), rounded


def check_used(spec: ImportSpec) -> None:
    """Raise ``SpecError`` for an import without layout or origin, and for settings of which the layout makes no use."""
    if not spec.layout:
        raise SpecError(f"say with --layout how the source is laid out: {', '.join(LAYOUTS)} (see `actioncache store layouts`)")
    used = LAYOUTS.get(spec.layout).settings | {"layout", "origin", "dtype", "timing", "format"}
    if not spec.origin.strip():
        raise SpecError(
            "say with --origin where the features come from (network, weights, tool): nothing else can tell them from others of their shape"
        )
    default = ImportSpec()
    different = [one.name for one in fields(ImportSpec) if getattr(spec, one.name) != getattr(default, one.name)]
    different += ["timing.base"] if spec.timing.base is not None else []
    if useless := [name for name in different if name not in used]:
        raise SpecError(f"layout {spec.layout} makes no use of --{', --'.join(useless).replace('_', '-')}; leave it away")


def _chosen(reader: Reader, options: ImportOptions) -> tuple[list[Item], list[str], list[str]]:
    """The videos to import, in order; those of the list that the source lacks; and what to tell."""
    if not reader.items:
        raise StoreError("; ".join(["nothing in the source is a video by these settings", *reader.notes]))
    if options.videos is None:
        return reader.items, [], list(reader.notes)
    items, missing, extra = match(reader.items, options.videos, options.match)
    if not items:
        raise SpecError(
            f"none of {len(reader.items)} videos found is in the list by --match {options.match}: "
            f"found {some(extra)}; the list has {some(options.videos.ids)}"
        )
    notes = [f"{len(extra)} videos found are not in the list: {some(extra)}"] if extra else []
    return items, missing, [*reader.notes, *notes]


def _timing(reader: Reader, items: Sequence[Item]) -> Any:
    """The timing, open questions decided by the first video that can be read."""
    carried: dict[str, Any] = {}
    if "auto" in (reader.spec.timing.frames, reader.spec.timing.times):
        for item in items:
            try:
                carried = reader.read(item).timing
                break
            except NOT_READ:
                continue
    return resolve(reader.spec.timing, carried)
