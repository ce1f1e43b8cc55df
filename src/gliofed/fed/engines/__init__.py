"""Ways to carry tasks to sites and answers back; the round loop is the same on each."""
