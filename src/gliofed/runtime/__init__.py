"""Work on one machine: progress, processes, devices, atomic files, templates."""
