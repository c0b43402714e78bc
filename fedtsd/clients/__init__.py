"""Everything private to a client lives behind this door: its data, its layers, its training."""
