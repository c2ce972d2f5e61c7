"""Networks of the user's own, by ``package.module:attribute``: ``--backbone mylab.nets:MyNet``. See docs/backbones.md.

What stands behind such a name can change at any time, so a digest of the source files that define the network becomes part of the
identity of its weights: features of two versions of the code can never share a store.
"""

import dataclasses
import difflib
import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch

from extract.backbones import MAP, Backbone, BackboneInfo
from store.errors import SpecError, UnknownNameError

OURS = ("extract", "torch", "builtins")  # top-level packages whose classes a network may build on; they have versions of their own
DIGITS = 12


def private_builder(name: str) -> Callable[[], Backbone]:
    """A builder of the network ``package.module:attribute``: a class or function that takes no arguments and gives a ``Backbone``.

    The module is looked for among the installed ones, then in the current folder. Raises ``UnknownNameError`` for a module or attribute
    that is not there, ``SpecError`` for one that cannot be imported; the builder raises ``SpecError`` for what is no ``Backbone``.
    """
    module_name, _, attribute = name.partition(":")
    module = _module(module_name, name)
    target = getattr(module, attribute, None)
    if target is None:
        near = difflib.get_close_matches(attribute, [each for each in vars(module) if not each.startswith("_")], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "check the name after the colon"
        raise UnknownNameError(f"backbone {name!r}: module {module_name} ({_file(module)}) has no {attribute!r}; {hint}")
    if not callable(target):
        raise SpecError(f"backbone {name!r} is a {type(target).__name__}; it must be a class or function that gives a Backbone")
    return lambda: _build(name, module, target)


def _build(name: str, module: ModuleType, target: Callable[[], object]) -> Backbone:
    try:
        network = target()
    except Exception as error:
        raise SpecError(f"backbone {name!r} cannot be built: {_reason(error)}; it is called without arguments") from error
    if not isinstance(network, Backbone):
        raise SpecError(
            f"backbone {name!r} gives a {type(network).__module__}.{type(network).__qualname__}, not an extract.backbones.Backbone; "
            "derive the network's class from Backbone, see docs/backbones.md"
        )
    info = getattr(network, "info", None)
    if not isinstance(info, BackboneInfo):
        raise SpecError(f"backbone {name!r} has no info; set self.info = BackboneInfo(...) in its constructor, see docs/backbones.md")
    if type(network).stages is Backbone.stages and type(network).forward is Backbone.forward:
        raise SpecError(f"backbone {name!r} has no method stages(frames) that yields (level, output), see docs/backbones.md")
    network.info = dataclasses.replace(info, name=name, code=f"code:{code_digest(name, module, network)}")
    return network


def code_digest(name: str, module: ModuleType, network: Backbone) -> str:
    """First digits of the SHA-256 of the source files that define a network: of ``module`` and of each class it is derived from.

    What these files import is not followed; a network whose features depend on more can state a version of it in ``BackboneInfo.code``,
    which goes into the digest too.
    """
    classes = [each for each in type(network).__mro__ if each.__module__.partition(".")[0] not in OURS]
    names = {module.__name__, *(each.__module__ for each in classes)}
    total = hashlib.sha256(network.info.code.encode())
    for each in sorted(names):
        file = _file(sys.modules[each])
        if file is None:
            raise SpecError(
                f"backbone {name!r}: module {each} has no source file, so nothing could tell its versions apart; use one that has"
            )
        total.update(f"{each}\n".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:DIGITS]


def check_promises(backbone: Backbone, levels: Sequence[str]) -> None:
    """Run a network that others wrote once, on black frames: ``SpecError`` if ``levels`` are not what its ``info`` promises."""
    info = backbone.info
    time = (info.clip_length,) if info.clip_length > 1 else ()
    frames = torch.zeros(1, info.channels, *time, info.size, info.size)
    try:
        with torch.inference_mode():
            features = backbone.eval()(frames, levels)
    except Exception as error:
        raise SpecError(f"backbone {info.name!r} fails on frames {list(frames.shape)}: {_reason(error)}") from error
    for level in levels:
        if level not in features:
            raise SpecError(f"backbone {info.name!r} does not give level {level}, which its info promises; it gives: {', '.join(features)}")
        width, shape = info.dims[level.removesuffix(MAP)], list(features[level].shape)
        if shape[:2] != [1, width] or (len(shape) == 2) != (not level.endswith(MAP)) or features[level].dtype != torch.float32:
            raise SpecError(f"backbone {info.name!r} gives level {level} as {shape}, but its info promises {width} float32 numbers")


def _module(module_name: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: what lies in a folder shall not stand in for what is installed
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UnknownNameError(
                f"backbone {name!r}: there is no module {error.name}, neither installed nor in the current folder {here}; "
                "write package.module:attribute, or see `actioncache backbones`"
            ) from None
        raise SpecError(f"backbone {name!r}: module {module_name} cannot be imported: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Type, words and place of an error in code that is not ours."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f" in {place.filename}, line {place.lineno}" if place.filename != __file__ else ""
    return f"{type(error).__name__}: {error}{where}"


def _file(module: ModuleType) -> Path | None:
    try:
        file = inspect.getsourcefile(module)
    except TypeError:  # built into the interpreter
        return None
    return Path(file) if file and Path(file).is_file() else None
