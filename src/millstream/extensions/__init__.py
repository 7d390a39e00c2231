"""What programs may add to agents, and the rest of the library does not need."""
