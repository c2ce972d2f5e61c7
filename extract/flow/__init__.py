"""Dense optical flow, one file a method."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from extract.spec import FlowSpec
from store.errors import SpecError, WeightsError
from store.registry import Registry


class FlowMethod(Protocol):
    """A dense optical flow method; one with an attribute ``colour`` that is true is given RGB images instead of grey ones."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second`` (uint8 [H, W] grey, or [H, W, 3]) as float32 [H, W, 2], (x, y) displacement in pixels."""
        ...


class LearnedFlow(FlowMethod, Protocol):
    """A method that is a network; its version is the family's and the identity of its weights."""

    version: str


class FlowFamily(Protocol):
    """How a method is made: its implementation's version, its parameters' defaults, and a builder."""

    @property
    def version(self) -> str:
        """What would have to change for a flow to change."""
        ...

    @property
    def defaults(self) -> Mapping[str, float]:
        """Every parameter with its default."""
        ...

    def __call__(self, params: Mapping[str, float]) -> FlowMethod:
        """Build the method; ``params`` holds a value for every name in ``defaults`` and no others."""
        ...


@runtime_checkable
class LearnedFamily(FlowFamily, Protocol):
    """The family of a network: without weights ``__call__`` raises ``WeightsError``."""

    def with_weights(self, params: Mapping[str, float], weights: str) -> LearnedFlow:
        """Build the method; ``weights`` is a file, ``published``, ``published:NAME`` or ``random:SEED``."""
        ...

    def weights_choices(self) -> str:
        """What can be given as weights, in words."""
        ...


FLOWS: Registry[FlowFamily] = Registry("flow method", "extract.flow")


def build_method(name: str, params: Mapping[str, float], weights: str = "") -> FlowMethod:
    """Build a method. ``SpecError`` for weights where it is no network, ``WeightsError`` where it is one and they cannot be used."""
    family = FLOWS.get(name)
    if isinstance(family, LearnedFamily):
        return family.with_weights(params, weights)
    if weights:
        raise SpecError(f"flow weights {weights!r} were given, but flow method {name} is no network; leave --flow-weights out")
    return family(params)


def flow_method(spec: FlowSpec, weights: str = "") -> FlowMethod:
    """The method of a resolved spec; ``WeightsError`` when it is a network and ``weights`` are not those that the spec names."""
    method = build_method(spec.method, spec.params, weights)
    version = getattr(method, "version", spec.version)
    if version != spec.version:
        raise WeightsError(f"flow weights {weights} are {version!r}, but this spec says {spec.version!r}; have they changed meanwhile?")
    return method


def weights_for(spec: FlowSpec, weights: str) -> str:
    """``weights`` where the spec's method is a network, else none."""
    return weights if is_learned(spec) else ""


def is_learned(spec: FlowSpec) -> bool:
    """Whether the spec's method is a network."""
    return spec.method in FLOWS.names() and isinstance(FLOWS.get(spec.method), LearnedFamily)


def in_colour(method: FlowMethod) -> bool:
    """Whether a method is given RGB images."""
    return bool(getattr(method, "colour", False))
