"""Sweeps: their points, and how each of their jobs is run."""
