"""What is kept of a run, so that it can go on where it was left: its form as JSON, there and back."""
