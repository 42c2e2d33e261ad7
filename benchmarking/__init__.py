"""Compares methods over seeds, as ``fmtda benchmark`` does: cells, sittings, tables and plots."""
