"""One training loop, one task per network, the preparation of label maps and the exporter of weights."""
