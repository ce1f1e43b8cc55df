"""What the people of a federation do: issue credentials, join, start, watch and withdraw."""
