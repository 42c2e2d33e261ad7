"""What ``fmtda benchmark`` is made of: cells, methods, tables and plots."""
