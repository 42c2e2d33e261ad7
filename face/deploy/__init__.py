"""Sets up clients on machines of their own: what ``fmtda deploy init`` writes, a file a subject."""
