"""``python -m fmtda`` is ``fmtda``."""

from fmtda.command_line import main

main()
