"""Somebody else's package: whatever is in it is found by its entry points alone."""
