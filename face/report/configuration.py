"""Reports how a run came about: its command, every setting, the versions."""

from fmtda.face.report.blocks import Block, ReportTable, Section, Text
from fmtda.face.report.runs import Run


def section(run: Run) -> Section:
    """Show enough to run it again."""
    config, places = run.settings.flat(), run.places
    changed = run.changed_settings()
    rows = [
        [
            key,
            "DIR" if key in places and value and not isinstance(value, bool) else _shown(value),
            "changed" if key in changed else "",
        ]
        for key, value in config.items()
    ]
    versions = ReportTable(["package", "version"], list(run.versions.items()), f"versions ({len(run.versions)})")
    settings = ReportTable(["setting", "value", ""], rows, f"every setting ({len(rows)})")
    text = f"Seed {run.settings.seed}. This line starts the same run:"
    blocks: list[Block] = [Text(run.command, code=True), settings, versions]
    if run.failures:
        failures = [[failure] for failure in run.failures]
        blocks.append(ReportTable(["what could not be used"], failures, f"failures ({len(failures)})"))
    return Section("Configuration", text, blocks)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
