"""The notebooks' parameters, the guard against stale cells, and `make tutorial`."""
