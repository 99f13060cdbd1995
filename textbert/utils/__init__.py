"""Atomic writes, locks, downloads, progress bars, and checks of values."""
