"""Batch jobs: an outstanding list cut into parts of about equal work, run as a Slurm array by submitit, watched, and tried again.

Nothing is kept but the store, the scheduler's own queue, and each submission's plan and logs in ``<store>/jobs``.
"""
