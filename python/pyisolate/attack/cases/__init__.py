"""The attacks, a file for what they aim at."""
