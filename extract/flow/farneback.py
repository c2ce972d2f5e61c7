"""Polynomial expansion (Farnebäck 2003), OpenCV's implementation."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np

from extract.flow import FLOWS
from store.digest import Checked, demand, from_dict, setting

SMALLEST_SIDE = 32  # pixels; OpenCV errs along the right and lower borders, by whole pixels in smaller images


@dataclass(frozen=True)
class FarnebackParams(Checked):
    """OpenCV's parameters, with its defaults; wrong ones raise ``SpecError``."""

    levels: int = setting(5, "images from coarse to fine; OpenCV uses fewer where a side would be below 32 pixels")
    pyr_scale: float = setting(0.5, "size of a level over the size of the next finer one")
    win_size: int = setting(13, "side of the square in pixels over which the flow is averaged")
    iterations: int = setting(10, "iterations at each level")
    poly_n: int = setting(5, "reach of the polynomials in pixels")
    poly_sigma: float = setting(1.1, "standard deviation in pixels of the polynomials' weights")
    gaussian: int = setting(0, "1: average with Gaussian weights instead of equal ones, slower and more exact")

    def check(self) -> None:
        for name, least in (("levels", 1), ("win_size", 2), ("iterations", 1), ("poly_n", 2)):
            demand(getattr(self, name) >= least, f"Farneback: {name} is {getattr(self, name)}; it must be at least {least}")
        demand(0 < self.pyr_scale < 1, f"Farneback: pyr_scale is {self.pyr_scale}; it must be between 0 and 1")
        demand(self.poly_sigma > 0, f"Farneback: poly_sigma is {self.poly_sigma}; it must be positive")
        demand(self.gaussian in (0, 1), f"Farneback: gaussian is {self.gaussian}; it must be 0 or 1")


DEFAULTS = FarnebackParams()


class Farneback:
    """Farneback's flow of one pair at a time; each is computed from nothing."""

    def __init__(self, params: FarnebackParams) -> None:
        self._params = params

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second``, see ``FlowMethod``; images below 32 pixels a side are extended by their mirror image."""
        cv2.setNumThreads(1)  # the workers are the parallelism, and OpenCV's own threads gain nothing here
        height, width = first.shape
        bottom, right = max(0, SMALLEST_SIDE - height), max(0, SMALLEST_SIDE - width)
        if bottom or right:
            first, second = (cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT_101) for image in (first, second))
        p = self._params
        flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN if p.gaussian else 0
        flow = cv2.calcOpticalFlowFarneback(
            first, second, None, p.pyr_scale, p.levels, p.win_size, p.iterations, p.poly_n, p.poly_sigma, flags
        )  # type: ignore[call-overload]
        return np.asarray(flow)[:height, :width]


class FarnebackFamily:
    """Builds ``Farneback``; its parameters are those of ``FarnebackParams``."""

    def __init__(self) -> None:
        self.version = f"opencv-{cv2.__version__}"
        self.defaults: Mapping[str, float] = {field.name: getattr(DEFAULTS, field.name) for field in fields(DEFAULTS)}

    def __call__(self, params: Mapping[str, float]) -> Farneback:
        """Build the method; a value that cannot be used is a ``SpecError``."""
        return Farneback(from_dict(FarnebackParams, params, "flow.params "))


FLOWS.register("farneback")(FarnebackFamily())
