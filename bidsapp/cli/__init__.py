"""Command line: one file per group of options, the configuration file, the entry point."""
