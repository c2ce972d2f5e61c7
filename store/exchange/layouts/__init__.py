"""Layouts of features as other tools keep them, one file each; each registers itself in ``store.exchange.LAYOUTS``."""
