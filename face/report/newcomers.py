"""Reports the clients that joined a run under way: near whom, and how good they were after how many rounds."""

from fmtda.face.report.blocks import ReportTable, Section, enumerated, percent
from fmtda.face.report.runs import Run
from fmtda.server.metrics import METRIC_NAMES, newcomers_of
from fmtda.server.workload_kinds import metric_of


def sentence(run: Run) -> str:
    """Say which client joined in which round; nothing where none did."""
    joined = newcomers_of(run.lines, run.inference)
    told = [f"{name} in round {newcomer['joined']}" for name, newcomer in joined.items()]
    return f" Late there joined {enumerated(told)}." if told else ""


def section(run: Run) -> Section | None:
    """Show a table of the neighbours and one of the rounds since."""
    joined = newcomers_of(run.lines, run.inference)
    if not joined:
        return None
    metric = METRIC_NAMES[metric_of(run.settings)]
    neighbours = [
        [name, newcomer["joined"], other, f"{found['divergence']:.4g}", f"{found['weight']:.2f}"]
        for name, newcomer in joined.items()
        for other, found in newcomer["nearest"].items()
    ]
    tables = [
        ReportTable(["client", "joined in round", "nearest", "divergence in nats", "weight in the blend"], neighbours)
    ]
    rounds = sorted({int(after) for newcomer in joined.values() for after in newcomer["accuracy_after"]})
    if rounds:
        reached = [
            [name, *(percent(newcomer["accuracy_after"].get(str(after))) for after in rounds)]
            for name, newcomer in joined.items()
        ]
        tables.append(ReportTable([f"{metric} after rounds", *map(str, rounds)], reached))
    text = (
        "The server compares mixtures: the nearest known clients are those with the smallest divergence, and the blend "
        "of their local classifiers is where the new one's starts. After 0 rounds means before it has trained; "
        f"{metric} is that of its whole domain."
    )
    return Section("Joined late", text, tables)
