"""Dense inverse search (Kroeger et al. 2016), OpenCV's implementation."""

from collections.abc import Mapping

import cv2
import numpy as np

from extract.flow import FLOWS
from store.errors import SpecError

SMALLEST_SIDE = 32  # OpenCV's DIS crashes the process on smaller images: below 32 pixels a side (presets 0 and 1) or 16 (preset 2)
PRESETS = {0: "ultrafast", 1: "fast", 2: "medium"}


class Dis:
    """One preset of DIS. The flow of a pair depends on that pair alone: OpenCV's object keeps buffers, but nothing of earlier pairs."""

    def __init__(self, preset: int) -> None:
        self._dis = cv2.DISOpticalFlow_create(preset)  # type: ignore[attr-defined]

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second``, see ``FlowMethod``; images below 32 pixels a side are extended by their border."""
        cv2.setNumThreads(1)  # the workers are the parallelism, and OpenCV's own threads gain nothing here
        height, width = first.shape
        bottom, right = max(0, SMALLEST_SIDE - height), max(0, SMALLEST_SIDE - width)
        if bottom or right:
            first, second = (cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE) for image in (first, second))
        return np.asarray(self._dis.calc(first, second, None))[:height, :width]


class DisFamily:
    """Builds ``Dis``. The only parameter is OpenCV's preset: 0 ultrafast, 1 fast, 2 medium (the slowest, and the most exact)."""

    def __init__(self) -> None:
        self.version = f"opencv-{cv2.__version__}"
        self.defaults: Mapping[str, float] = {"preset": 2.0}

    def __call__(self, params: Mapping[str, float]) -> Dis:
        """Build the method; a preset that does not exist is a ``SpecError``."""
        if params["preset"] not in PRESETS:
            known = ", ".join(f"{number} ({name})" for number, name in PRESETS.items())
            raise SpecError(f"flow.params preset is {params['preset']:g}; presets of dis: {known}")
        return Dis(int(params["preset"]))


FLOWS.register("dis")(DisFamily())
