"""Control of a hospital over what leaves it: policy, approval and audit log."""
