"""The face of fmtda: command line, simulation launcher, and how a run is shown. Nothing imports it."""
