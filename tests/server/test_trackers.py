"""Every tracker gets the same names and steps, from the real TensorBoard, MLflow and Weights & Biases."""

import json
import struct
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmtda.protocol.tables import SettingsError
from fmtda.server.startup import effective_settings
from fmtda.server.trackers import Trackers, allowed_name

LINES = [
    {
        "round": server_round,
        "accuracy": {"pen": {"global": 50.0 + server_round}, "photo (old)": {"mean": 40.0}},
        "train": {"discrepancy": 0.25, "schedule": "constant"},
        "clients": {"pen/0000": {"up": 10, "down": 20, "seconds": 1.5}},
        "failures": ["x"] * server_round,
    }
    for server_round in (1, 2)
]
NAMES = {
    *("accuracy/pen/global", "accuracy/photo__old_/mean", "server/discrepancy", "clients/failures"),
    *("clients/mean-up", "clients/mean-down", "clients/mean-seconds"),
}


@pytest.fixture
def write(settings_of, tmp_path, monkeypatch):
    """Lines and a picture, written to some trackers; returns the run directory."""
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    folder.mkdir()

    def write(names, lines=LINES, first_round=1):
        trackers = Trackers(settings_of({"trackers": names}), folder, first_round)
        for line in lines:
            trackers.log(line)
        trackers.show("samples", torch.arange(3 * 8 * 8).reshape(3, 8, 8).byte(), lines[-1]["round"])
        trackers.close()
        return folder

    return write


def in_tensorboard(folder):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    names = events.Tags()["scalars"]
    pictures = {(name, each.step) for name in events.Tags()["images"] for each in events.Images(name)}
    return {(name, each.step, each.value) for name in names for each in events.Scalars(name)}, pictures


def test_tensorboard_is_always_written(write):
    numbers, pictures = in_tensorboard(write("tensorboard"))
    assert {name for name, _, _ in numbers} == NAMES
    assert ("accuracy/pen/global", 2, 52.0) in numbers and ("clients/failures", 1, 1.0) in numbers
    assert pictures == {("samples", 2)}


def test_mlflow_gets_the_same_names_and_steps(write):
    mlflow = pytest.importorskip("mlflow")
    folder = write("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run = json.loads((folder / "trackers.json").read_text())["mlflow"]
    names = client.get_run(run).data.metrics
    numbers = {(name, each.step, each.value) for name in names for each in client.get_metric_history(run, name)}
    assert (numbers, {("samples", 2)}) == in_tensorboard(folder)
    assert client.get_run(run).data.params["dualadapt.client-steps"] == "3"
    assert client.get_run(run).info.status == "FINISHED"
    assert list((folder / "mlflow").rglob("*.png"))


def test_weights_and_biases_gets_the_same_names_and_steps(write):
    wandb = pytest.importorskip("wandb")
    folder = write("wandb")
    wandb.teardown()  # the process that writes the file ends with it
    logged = list(wandb_history(folder))
    numbers = {each for each in logged if not each[0].startswith("samples/")}
    pictures = {("samples", step) for name, step, _ in logged if name == "samples/path"}
    assert (numbers, pictures) == in_tensorboard(folder)


def wandb_history(folder):
    """(name, step, value) of everything logged offline; the file is in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    content, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        parts, at = parts + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            record, parts = Record.FromString(parts), b""
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                step = items["_step"]
                for name, value in items.items():
                    if not name.startswith("_"):
                        yield name, step, value


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(write):
    mlflow = pytest.importorskip("mlflow")
    folder = write("mlflow", LINES[:1])
    before = (folder / "trackers.json").read_text()
    write("mlflow", LINES[1:], first_round=2)
    assert (folder / "trackers.json").read_text() == before
    client, run = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db"), json.loads(before)["mlflow"]
    assert [each.step for each in client.get_metric_history(run, "clients/failures")] == [1, 2]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_line_that_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=rf"trackers={name}: {name} is not installed .*fmtda\[trackers\]"):
        effective_settings({"trackers": name})


def test_an_unknown_tracker_is_refused():
    with pytest.raises(SettingsError, match="trackers=neptune"):
        effective_settings({"trackers": "neptune"})


def test_names_keep_to_what_every_tracker_takes():
    assert allowed_name("accuracy/Größe: 3 (a)/F_g") == "accuracy/Gr__e__3__a_/F_g"


NO_PATHS = (
    "..",
    "../../x",
    "/etc",
    "a//b",
    "a/",
    "./b",
    "\x1b[2J\x00",
    "",
    "__proto__",
    "x" * 5000,
    "漢 </script>",
    "_step",
)


def test_no_name_of_a_domain_ends_a_run_or_makes_another_path(write):
    accuracy = {domain: {"global": 50.0, domain: 1.0} for domain in NO_PATHS}
    lines = [{**line, "accuracy": accuracy, "loss": dict.fromkeys(NO_PATHS, float("nan"))} for line in LINES]
    folder = write("tensorboard,mlflow,wandb", lines)
    numbers, _ = in_tensorboard(folder)
    names = {name for name, _, _ in numbers}
    assert {"accuracy/_/_/x/global", "accuracy/_/etc/global", "loss/a/_/b"} & names
    for name in names:
        assert allowed_name(name) == name and len(name) <= 200
        assert not {"", ".", ".."} & set(name.split("/"))
