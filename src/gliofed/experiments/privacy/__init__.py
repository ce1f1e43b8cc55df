"""The privacy audit of a finished run: attacks on its models and on updates of its sites."""
