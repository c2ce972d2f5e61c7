"""Make tests/golden/store_v1, a store of today's format that every later version must read. Run once, by hand, and committed.

    python tests/golden/make_store.py

Values follow closed forms, so that a test can recompute them: see ``golden_features``.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

SPEC = {"source": "golden", "format": 1, "levels": ["low", "high"]}
IDS = ("walk/one.avi", "ü/日本", "third")


def golden_features(number: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Video ``number`` has number + 1 rows; row r has (r + number) / 8 + column in ``low`` and -2^-column * (r + 1) in ``high``."""
    rows = np.arange(number + 1)
    low = ((rows[:, None] + number) / 8 + np.arange(4)).astype(np.float16)
    high = (-(2.0 ** -np.arange(6).reshape(2, 3)) * (rows[:, None, None] + 1)).astype(np.float32)
    frames = np.stack([16 * rows, 16 * rows + 16], 1).astype(np.int64)
    return {"low": low, "high": high}, frames, frames / 25


def main() -> None:
    """Write the fixture anew."""
    from store.features import Features, FeatureStore

    shutil.rmtree(HERE / "store_v1", ignore_errors=True)
    store = FeatureStore.create(HERE / "store_v1", "golden", SPEC)
    with store.writer("main") as writer:
        for number, video_id in enumerate(IDS):
            writer.add(video_id, Features(*golden_features(number)))
        writer.fail("broken.avi", "decode", "no frame could be decoded")


if __name__ == "__main__":
    main()
