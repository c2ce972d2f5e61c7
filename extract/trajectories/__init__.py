"""Improved trajectories (Wang & Schmid, ICCV 2013): points tracked in dense flow, with descriptors of the volume around each track."""
