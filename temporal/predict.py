"""Scores of a trained head: the same features, projection and sampling as in training, nothing refitted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import SpecMismatchError
from store.scores import Kind, ScoreTable
from temporal.params import head_info
from temporal.scoring import score_kind
from temporal.sequences import FeatureSource, Sequences, load_sequences
from temporal.spec import RunSpec

if TYPE_CHECKING:
    from store.videos import VideoList
    from temporal.run_dir import Run
    from temporal.train import Fitted


def predict(run: "Run", stores: Sequence[FeatureSource], videos: "VideoList", device: str = "cpu") -> ScoreTable:
    """Scores of ``videos`` from a run's head, of the kind that ``scoring.score_kind`` says; labels are kept for evaluation, never used.

    Raises SpecMismatchError (features made from another spec), MissingFeaturesError, ListError (a label that is no class of the run).
    """
    from temporal.batches import padded
    from temporal.train import check_device, class_scores

    check_device(device)
    check_stores(run, stores)
    head, projection = run.head(device)
    levels = [entry["level"] for entry in run.features]
    spec, kind = run.spec, score_kind(run.spec)
    sequences = load_sequences(stores, videos, spec.sequence, levels, run.classes, head_info(spec.head.name).reads)
    values = class_scores(head, padded(sequences, projection, spec.sequence, device), kind)
    return score_table(values, sequences, run.classes, kind, {"run": run.name, "run_digest": run.digest, "features": run.features})


def check_stores(run: "Run", stores: Sequence[FeatureSource]) -> None:
    """SpecMismatchError unless ``stores`` are, in this order, made from the specs that the run was trained on."""
    trained = run.features
    if len(trained) != len(stores):
        raise SpecMismatchError(
            f"run {run.path} was trained on {len(trained)} feature store(s) ({', '.join(entry['name'] for entry in trained)}), not "
            f"{len(stores)}; give --features as often, in this order"
        )
    for entry, store in zip(trained, stores, strict=True):
        if entry["digest"] != store.digest:
            raise SpecMismatchError(
                f"run {run.path} was trained on features {entry['name']} (spec digest {entry['digest'][:12]}), but {store.path} has the "
                f"spec digest {store.digest[:12]}; extract these videos with the run's feature spec"
            )


def score_table(values: np.ndarray, sequences: Sequences, classes: Sequence[str], kind: Kind, source: Mapping[str, Any]) -> ScoreTable:
    """Wrap scores [V, C]; labels are left out unless every video has one."""
    labels = np.array(sequences.labels) if len(sequences) and (sequences.labels >= 0).all() else None
    return ScoreTable(sequences.ids, tuple(classes), values, kind, labels, dict(source))


def fitted_table(
    fitted: "Fitted", sequences: Sequences, spec: RunSpec, classes: Sequence[str], source: Mapping[str, Any], device: str
) -> ScoreTable:
    """Score a part with a head that has just been fitted."""
    from temporal.batches import padded
    from temporal.train import class_scores

    kind = score_kind(spec)
    values = class_scores(fitted.head, padded(sequences, fitted.projection, spec.sequence, device), kind)
    return score_table(values, sequences, classes, kind, source)
