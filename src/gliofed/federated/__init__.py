"""Federated training: messages, clients, server, aggregation, and governance at the sites."""
