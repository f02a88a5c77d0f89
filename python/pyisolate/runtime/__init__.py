"""The contract between a host and its cells."""
