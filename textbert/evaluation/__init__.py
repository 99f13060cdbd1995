"""Metrics and intervals, calibration, baselines, explanations, plots and the report."""
