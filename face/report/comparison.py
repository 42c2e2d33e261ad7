"""Reports several runs side by side: one table, their courses in one figure, what they differ in."""

from fmtda.face.report.blocks import (
    COLOURS,
    Figure,
    Figures,
    Gallery,
    GalleryPicture,
    ReportTable,
    Section,
    percent,
    plural,
    rounds_axis,
    shown_bytes,
    shown_number,
    shown_seconds,
)
from fmtda.face.report.generative import last_samples, logarithmic
from fmtda.face.report.runs import Run
from fmtda.server.metrics import mean


def names_of(runs: list[Run]) -> list[str]:
    """Name the runs by their folders, with those above where two share a name."""
    places = [run.path.absolute().parts for run in runs]
    names = [run.name for run in runs]
    for length in range(2, max(map(len, places), default=0) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(parts[-length:]) for parts in places]
    return names


def sentence(runs: list[Run]) -> str:
    """Say which of the runs came out best."""
    known = [(run.average, name) for run, name in zip(runs, names_of(runs), strict=True) if run.average is not None]
    count = plural(len(runs), "run")
    if not known or len({(run.generative, run.settings.workload) for run in runs}) > 1:
        return f"{count} side by side."
    if runs[0].generative:
        best, name = min(known)
        return f"{count} side by side; {name} has the lowest loss on held-out examples, {shown_number(best)}."
    best, name = max(known)
    return f"{count} side by side; {name} is best on average over its targets, with {percent(best)}."


def sections(runs: list[Run]) -> list[Section]:
    """Show the table, the courses, the domains, the samples and the settings."""
    made = [_table(runs), _courses(runs), _domains(runs), _samples(runs), _settings(runs)]
    return [section for section in made if section]


def _table(runs: list[Run]) -> Section:
    domains = list(dict.fromkeys(domain for run in runs for domain in run.reached))
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        shown = shown_number if run.generative else percent
        rows.append(
            [
                name,
                run.settings.workload if run.generative else run.settings.strategy,
                run.settings.seed,
                run.lines[-1]["round"],
                run.settings.clients,
                *(shown(run.reached.get(domain)) for domain in domains),
                shown(run.average),
                shown_bytes(run.cost("up")),
                shown_seconds(run.cost("seconds")),
                shown_seconds(run.summary.get("wall_seconds")),
            ]
        )
    head = ["run", "method", "seed", "rounds", "clients", *domains, "average", "up", "client", "in all"]
    text = "Up and client: bytes and seconds of a client a round. In all: of the run, all its sittings."
    return Section("Side by side", text, [ReportTable(head, rows)])


def _courses(runs: list[Run]) -> Section | None:
    figures = []
    for generative, title in ((False, "average over the targets, percent"), (True, "loss on held-out examples")):
        traces = []
        for i, (name, run) in enumerate(zip(names_of(runs), runs, strict=True)):
            if run.generative != generative:
                continue
            points = [
                (line["round"] + (line["phase"] == "personalise"), mean(values.values()))
                for line in run.evaluated
                if (values := line["loss"] if generative else run.accuracy(line))
            ]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": name,
                    "x": [after for after, _ in points],
                    "y": [float(f"{value:.5g}") for _, value in points],
                    "line": {"color": COLOURS[i % len(COLOURS)]},
                    "hovertemplate": "%{fullData.name}, round %{x}: %{y:.4g}<extra></extra>",
                }
            )
        if traces:
            values = [value for trace in traces for value in trace["y"]]
            axis = logarithmic(values) if generative and values else {}
            last = max(max(trace["x"], default=1) for trace in traces)
            layout = {"xaxis": rounds_axis(last), "yaxis": axis}
            figures.append(Figure(traces, layout, title, 360))
    return Section("Courses", "", [Figures(figures, "whole")])


def _domains(runs: list[Run]) -> Section | None:
    adapting = [
        (i, name, run) for i, (name, run) in enumerate(zip(names_of(runs), runs, strict=True)) if not run.generative
    ]
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": list(run.reached),
            "y": [round(value, 2) for value in run.reached.values()],
            "marker": {"color": COLOURS[i % len(COLOURS)]},
            "hovertemplate": "%{fullData.name}, %{x}: %{y:.1f} %<extra></extra>",
        }
        for i, name, run in adapting
    ]
    if len(traces) < 2:
        return None
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category"},
        "yaxis": {"range": [0, 100], "title": {"text": "percent"}},
    }
    return Section("Domains", "", [Figures([Figure(traces, layout, height=340)], "whole")])


def _samples(runs: list[Run]) -> Section | None:
    pictures = []
    for name, run in zip(names_of(runs), runs, strict=True):
        if run.generative and (picture := last_samples(run)):
            pictures.append(GalleryPicture(picture.source, picture.text, [name, *picture.caption]))
    return Section("Samples", "The latest of each run.", [Gallery("", pictures, "medium")]) if pictures else None


def _settings(runs: list[Run]) -> Section:
    configs, places = [run.settings.flat() for run in runs], runs[0].places | runs[-1].places
    keys = list(dict.fromkeys(key for config in configs for key in config if key not in places))
    rows = [
        [key, *(str(config.get(key, "–")).lower() for config in configs)]
        for key in keys
        if len({str(config.get(key)) for config in configs}) > 1
    ]
    names = names_of(runs)
    commands = ReportTable(
        ["run", "command"], [[name, run.command] for name, run in zip(names, runs, strict=True)], "commands"
    )
    if not rows:
        return Section("Settings", "All settings are equal.", [commands])
    return Section("Settings", "Those in which the runs differ.", [ReportTable(["setting", *names], rows), commands])
