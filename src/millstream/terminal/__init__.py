"""What a person sees of a run: `view` decides what to say, `screen` puts it on a terminal."""
