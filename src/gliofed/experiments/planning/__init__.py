"""What a study needs, stated before anything is trained: cases, rounds, bytes, disk, hours."""
