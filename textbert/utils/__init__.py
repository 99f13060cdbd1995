"""Files that are complete or absent, locks, downloads, progress, and checks of values."""
