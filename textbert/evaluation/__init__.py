"""Metrics and intervals, calibration, the TF-IDF baseline, label issues, explanations, plots and the report."""
