"""Looking inside a classifier: attribution, feature visualisation, dreams, traces."""
