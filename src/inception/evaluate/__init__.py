"""Metrics, reports and the measurement of a bundle on a data set."""
