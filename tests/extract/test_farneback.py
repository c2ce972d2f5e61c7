"""Farneback's flow is OpenCV's, with its parameters by name."""

import cv2
import numpy as np
import pytest

from extract.flow import FLOWS
from extract.flow_frames import resolve_flow
from extract.spec import FlowSpec
from store.errors import SpecError

RANDOM = np.random.default_rng(2)
FIRST = cv2.GaussianBlur(RANDOM.uniform(-800, 1055, (60, 90)), (0, 0), 2).clip(0, 255).astype(np.uint8)
SECOND = np.roll(FIRST, 2, 1)


def flow(**params: float) -> np.ndarray:
    family = FLOWS.get("farneback")
    return family({**family.defaults, **params})(FIRST, SECOND)


def test_the_defaults_are_opencvs() -> None:
    assert np.array_equal(flow(), cv2.FarnebackOpticalFlow_create().calc(FIRST, SECOND, None))  # type: ignore[attr-defined]


def test_every_parameter_reaches_opencv() -> None:
    theirs = cv2.calcOpticalFlowFarneback(FIRST, SECOND, None, 0.7, 2, 9, 3, 7, 1.5, cv2.OPTFLOW_FARNEBACK_GAUSSIAN)  # type: ignore[call-overload]
    ours = flow(pyr_scale=0.7, levels=2, win_size=9, iterations=3, poly_n=7, poly_sigma=1.5, gaussian=1)
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours, flow())


def test_motion_to_the_right_is_positive_x() -> None:
    assert np.median(flow()[10:-10, 10:-10], (0, 1)) == pytest.approx([2, 0], abs=0.1)


def test_the_spec_notes_version_and_parameters() -> None:
    spec = resolve_flow(FlowSpec(method="farneback", params={"levels": 3}))
    assert spec.version == f"opencv-{cv2.__version__}"
    assert spec.params == {**FLOWS.get("farneback").defaults, "levels": 3}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"levels": 0}, "Farneback: levels is 0; it must be at least 1"),
        ({"win_size": 1}, "win_size is 1; it must be at least 2"),
        ({"iterations": 0}, "iterations is 0; it must be at least 1"),
        ({"poly_n": 1}, "poly_n is 1; it must be at least 2"),
        ({"pyr_scale": 1}, "pyr_scale is 1.0; it must be between 0 and 1"),
        ({"poly_sigma": 0}, "poly_sigma is 0.0; it must be positive"),
        ({"gaussian": 2}, "gaussian is 2; it must be 0 or 1"),
        ({"levels": 2.5}, "levels is 2.5; it must be a whole number"),
        ({"level": 2}, "no parameter 'level'; did you mean 'levels'"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, float], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        resolve_flow(FlowSpec(method="farneback", params=params))
