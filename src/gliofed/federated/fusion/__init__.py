"""The fusion of a run between sites: its requests, the sums of each site, the fit."""
