"""Image in, image out: one file per capability, each usable alone from Python."""
