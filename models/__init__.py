"""Everything numeric: geometry, networks, losses, synthesis, prediction and training. Never Nipype, never BIDS."""
