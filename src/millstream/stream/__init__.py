"""Ways to look at a stream of events; each is a fold over entries and keeps no run."""
