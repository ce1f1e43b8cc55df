"""The server's half of a federation: training rounds, federated test, federated calibration."""
