"""A run: its loop and what the loop needs, from the pure turn to the readers it waits for."""
