"""How good a classifier is: metrics, calibration, plots and the report."""
