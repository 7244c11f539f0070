"""The systems of history: one file per system or family, to be read from top to bottom beside its paper."""
