"""What measures fmtda: methods against each other, fmtda beside Flower, and a client alone. Only `fmtda` imports it."""
