"""A model in a form that others can run, checked against the model before it is kept."""
