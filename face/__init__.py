"""Holds the command line and what it shows: progress, tables, the report, deployment folders. Nothing imports it."""
