"""Record-level differential privacy: clipping, noise, accounting, and a hospital's ledger."""
