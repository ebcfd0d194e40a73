"""Finished studies."""
