"""What a hospital is asked before anything leaves it: policy, approval, and an audit of both."""
