"""A name -> builder table filled by the module files of one package.

Adding a backbone, flow method, head or rule is adding one file: the registry imports every module of its package on first use.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from store.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, e.g. ``BACKBONES = Registry("backbone", "extract.backbones")``."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its target under ``name``; a name taken already raises ``ValueError``."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"two {self.kind}s are called {name!r}; names must be unique")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The entry called ``name``; an unknown one raises ``UnknownNameError`` with the nearest names."""
        self._load()
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.names())}"
            raise UnknownNameError(f"no {self.kind} is called {name!r}; {hint}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._loaded = True
