"""What every HTML page shares: frame, style, number formats, security policy."""
