"""Models: the promise they give a run, and the adapters to the wires they speak."""
