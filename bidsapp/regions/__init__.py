"""``bidsapp-regions``: own regions, taught by masks in a BIDS derivative."""
