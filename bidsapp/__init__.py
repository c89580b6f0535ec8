"""The program: command line, checks before a run, BIDS queries, execution, reports. Nothing scientific."""
