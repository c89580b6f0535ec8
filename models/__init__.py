"""Everything numeric: geometry, networks, losses, synthesis, prediction, training. No Nipype, no BIDS."""
