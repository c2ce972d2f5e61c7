"""From the scores of samples to those of videos."""

import numpy as np

from store.scores import Kind
from temporal.params import head_info
from temporal.spec import RunSpec


def score_kind(spec: RunSpec) -> Kind:
    """What a run's numbers are: "scores" (raw class scores), the head's own kind, or "log_probs" where a video's samples are averaged."""
    kind = head_info(spec.head.name).kind
    if kind == "decision_values":
        return "decision_values"
    return "scores" if spec.sequence.samples == "video" else "log_probs"


def video_scores(values: np.ndarray, owners: np.ndarray, kind: Kind) -> np.ndarray:
    """Scores float32 [S, C] of samples, sample s of video ``owners[s]`` (ascending, none left out), as one row a video, float32 [V, C].

    "log_probs": log(mean over a video's M samples of softmax(values)), the class probabilities of PAPERS B and C, in float64;
    "decision_values": their mean. "scores" stay as they are: every video has one sample.
    """
    if kind == "scores":
        return values
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    many = np.diff(firsts, append=len(owners))[:, None]
    exact = values.astype(np.float64)
    if kind == "decision_values":
        return (np.add.reduceat(exact, firsts) / many).astype(np.float32)
    log_probs = exact - np.logaddexp.reduce(exact, axis=1, keepdims=True)
    return (np.logaddexp.reduceat(log_probs, firsts) - np.log(many)).astype(np.float32)
