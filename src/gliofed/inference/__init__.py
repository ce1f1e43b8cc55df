"""From a model and a prepared case to a prediction on the scan's own grid."""
