"""The same verbs for a terminal. Nothing here computes; nothing heavy is imported for --help."""
