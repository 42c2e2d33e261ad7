"""``python -m fmtda`` is ``fmtda``."""

from fmtda.face.command_line import main

main()
