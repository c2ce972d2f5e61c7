"""Rules that combine aligned score tables, one file a rule."""
