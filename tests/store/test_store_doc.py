"""Every Python snippet of docs/store.md runs as printed, one after the other."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import Features, FeatureStore

DOCUMENT = Path(__file__).parents[2] / "docs" / "store.md"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than processors
def test_the_snippets_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FeatureStore.create(Path("features"), "resnet34-tencrop", {"made": "for a test"})
    rng = np.random.default_rng(0)
    with store.writer() as writer:
        for video_id, rows in (("v_1.avi", 3), ("v_2.avi", 5)):
            values = {level: rng.standard_normal((rows, 512)).astype(np.float16) for level in ("block3", "block4")}
            writer.add(video_id, Features(values, np.zeros((rows, 2), np.int64), np.zeros((rows, 2))))
    snippets = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 3
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(compile(snippet, str(DOCUMENT), "exec"), names)
    assert names["rows"].values.shape == (8, 512)
    assert np.array_equal(names["rows"].of(1), store.get("v_2.avi").values["block4"].astype(np.float32))
    assert (names["x"].shape, sorted(names["lengths"].tolist())) == ((2, 5, 512), [3, 5])
    mine = FeatureStore.open(Path("features/mine"))
    assert mine.get("v_1.avi").times[1].tolist() == [16 / 25, 32 / 25]
    assert mine.failures()["v_2.avi"].reason == "no frame could be decoded"
