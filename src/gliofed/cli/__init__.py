"""The command line: commands call the public API. `--help` imports nothing heavy."""
