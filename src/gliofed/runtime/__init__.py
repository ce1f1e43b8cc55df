"""How work runs on one machine: progress, processes, devices, files written whole, templates."""
