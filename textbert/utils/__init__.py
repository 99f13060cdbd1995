"""Atomic writes, locks, downloads, progress bars, several processes, and checks of values."""
