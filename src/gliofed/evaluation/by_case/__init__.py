"""The score table from predictions of single cases."""
