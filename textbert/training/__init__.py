"""Optimizer and losses, the run behind the notebook's loop, checkpoints, devices and processes."""
