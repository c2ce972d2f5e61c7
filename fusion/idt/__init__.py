"""Improved trajectories to class scores: Fisher vectors (Perronnin et al. 2010) and linear SVMs, as Wang & Schmid (ICCV 2013) use them."""
