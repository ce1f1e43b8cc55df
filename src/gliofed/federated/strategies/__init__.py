"""Strategies of federated training, one file each with the client's and the server's half."""
