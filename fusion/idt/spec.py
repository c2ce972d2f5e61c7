"""Settings of Fisher vectors and of the SVM; defaults are those of Wang & Schmid (ICCV 2013)."""

from dataclasses import dataclass, field
from typing import Literal

from store.digest import Checked, demand, setting
from store.trajectory_format import DESCRIPTORS

VERSION = 2  # raised when the same settings give other numbers


@dataclass(frozen=True)
class FisherSpec(Checked):
    """From trajectories to Fisher vectors: per descriptor PCA, a Gaussian mixture, the gradient of its log-likelihood, normalised."""

    descriptors: tuple[str, ...] = setting(tuple(DESCRIPTORS), "which descriptors are encoded, each by itself")
    norm: Literal["as_written", "rootsift"] = setting(
        "as_written",
        "rootsift: square roots of the shares of their sum for HOG, HOF and MBH, as the paper has it. Files of the improved program (and "
        "of `idt extract`) hold that already; for files of 2011",
    )
    sample: int = setting(256_000, "trajectories of the training videos, as many from each, that PCA and mixture are fitted to")
    pca: float = setting(0.5, "share of a descriptor's dimensions that PCA keeps; 0 for no PCA")
    components: int = setting(256, "Gaussians of the mixture, with diagonal covariance")
    iterations: int = setting(100, "steps of expectation-maximisation, at most")
    tolerance: float = setting(1e-3, "gain of the mean log-likelihood in a step below which the fit has converged")
    floor: float = setting(1e-4, "added to each variance, as a share of the descriptor's mean variance")
    init: Literal["kmeans", "k-means++", "random_from_data"] = setting("k-means++", "where the Gaussians begin, by scikit-learn")
    power: float = setting(0.5, "each component to this power of its absolute value, with its sign; 1 for none")
    l2: bool = setting(True, "each descriptor's vector to length 1, after that")
    dtype: Literal["float32", "float16"] = setting("float32", "type in which vectors are stored")
    seed: int = setting(0, "of the sample and of the fits")

    def check(self) -> None:
        unknown = [name for name in self.descriptors if name not in DESCRIPTORS]
        demand(not unknown, f"descriptors are {list(self.descriptors)}; {unknown} are none of {', '.join(DESCRIPTORS)}")
        demand(0 < len(set(self.descriptors)) == len(self.descriptors), f"descriptors are {list(self.descriptors)}; name some, each once")
        for name in ("sample", "components", "iterations"):
            demand(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        demand(self.sample >= self.components, f"sample is {self.sample}, fewer than the {self.components} components of the mixture")
        demand(0 <= self.pca <= 1, f"pca is {self.pca:g}; it must be a share of the dimensions, or 0 for none")
        demand(0 < self.power <= 1, f"power is {self.power:g}; it must be above 0 and at most 1")
        demand(self.floor > 0 and self.tolerance > 0, f"floor ({self.floor:g}) and tolerance ({self.tolerance:g}) must be positive")
        demand(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be from 0 to {2**32 - 1}")


@dataclass(frozen=True)
class SvmSpec(Checked):
    """One linear SVM a class against the rest, on the descriptors' vectors side by side."""

    c: float = setting(100.0, "cost of a training video on the wrong side")
    descriptors: tuple[str, ...] = field(
        default=(), metadata={"help": "use only these of the encoded descriptors, e.g. hog,hof,mbhx,mbhy; none given: all"}
    )

    def check(self) -> None:
        demand(self.c > 0, f"c is {self.c:g}; it must be positive")
