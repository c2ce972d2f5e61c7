"""Exchange with other tools: read their features into a store, write a store's features for them. One file a layout, in ``layouts``."""

from store.exchange.layout import Layout
from store.registry import Registry

LAYOUTS: Registry[type[Layout]] = Registry("layout", "store.exchange.layouts")
