"""From a model and a prepared case to an answer on the scan's own grid."""
