"""From a scan to the network's space: one file a step, and the recipe that runs them."""
