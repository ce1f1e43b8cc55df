"""The paper's experiment: federated against pooled against each site alone, on held-out sites."""
