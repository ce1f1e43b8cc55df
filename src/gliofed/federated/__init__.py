"""The federation: what a site answers, what the server merges, and the rounds between them."""
