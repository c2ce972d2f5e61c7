"""What decides a trajectory: every choice that changes a number in a file."""

from dataclasses import dataclass
from typing import Literal

from store.digest import Checked, demand, setting

PATCH = 32  # side in pixels, at its scale, of the square around a point whose descriptors are taken
CELLS = 2  # cells of the patch along x, and along y
CELL = PATCH // CELLS
STEPS_PER_CELL = 5  # frames of a cell: three cells in the 15 steps of a track
BINS = {"hog": 8, "hof": 9, "mbhx": 8, "mbhy": 8}  # the ninth bin of HOF counts pixels that hardly move
RATIO = 2**0.5  # from a scale to the next smaller image
VERSION = 1  # raised when our implementation gives other numbers


@dataclass(frozen=True)
class TrajectorySpec(Checked):
    """Defaults are those that the paper and its program state; a track has 15 steps and a patch 2 x 2 x 3 cells, as the files do."""

    short_side: int = setting(0, "resize frames to this short side first; 0 keeps their size. Coordinates are of the resized frames")
    grid: int = setting(5, "a point is sampled in each empty square of so many pixels, at every scale")
    scales: int = setting(8, "images from fine to coarse, each 1/sqrt(2) of the one before; fewer where a side would be below 32 pixels")
    quality: float = setting(0.001, "points with a smaller eigenvalue than this share of the frame's largest are not sampled")
    features: Literal["orb", "sift", "none"] = setting(
        "orb", "features matched from frame to frame, beside corners followed by the flow, to find the camera's motion"
    )
    camera: Literal["recompute", "subtract", "none"] = setting(
        "recompute",
        "camera's motion: recompute the flow to the frame that is warped back (as published), subtract it from the flow (0.7 of the time), "
        "or none: leave it in (as in dense trajectories of 2011)",
    )
    norm: Literal["rootsift", "l2"] = setting(
        "rootsift", "descriptors of each frame: square roots of the shares of their sum (2013), or divided by their length (2011)"
    )

    def check(self) -> None:
        demand(
            self.short_side == 0 or PATCH <= self.short_side <= 4096,
            f"short_side is {self.short_side}; it must be 0 (as they are) or {PATCH} to 4096",
        )
        demand(1 <= self.grid <= PATCH, f"grid is {self.grid}; it must be from 1 to {PATCH} pixels")
        demand(1 <= self.scales <= 20, f"scales is {self.scales}; it must be from 1 to 20")
        demand(0 <= self.quality < 1, f"quality is {self.quality:g}; it must be from 0 to below 1")
