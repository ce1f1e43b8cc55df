"""One file per published data set; each reads its layout into cases."""
