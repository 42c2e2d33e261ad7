"""The model out of a run directory predicts what the client itself predicted."""

import json
import shutil

import pytest
import torch
from in_process_runs import finish
from safetensors.torch import save_file

import fmtda
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.inference.domain_choice import choose, spread
from fmtda.inference.run_clients import clients_of
from fmtda.protocol.tables import SettingsError


def test_every_head_is_as_accurate_as_the_client_reported(adapted):
    summary = json.loads((adapted / "summary.json").read_text())
    for domain, by_head in summary["accuracy_by_head"].items():
        examples = family("digits").load(domain, "test", DataSpec())
        prediction = fmtda.AdaptedModel.load(adapted, domain).predict(examples.inputs[:])
        assert sorted(by_head) == sorted(prediction.by_head) == ["global", "local", "mean", "personal"]
        for head, p in prediction.by_head.items():
            right = int((p.argmax(dim=1) == examples.labels[:]).sum())
            assert 100 * right / len(examples) == pytest.approx(by_head[head], abs=1e-9)
        assert torch.equal(prediction.probabilities, prediction.by_head["personal"])


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "source-only"},
        {"strategy": "adabn"},
        {"strategy": "fedavg-self-training"},
        {"strategy": "fed-mcd"},
        {"strategy": "fed-dann"},
        {"network.precision": "bfloat16"},
    ],
    ids=lambda change: next(iter(change.values())),
)
def test_models_of_other_runs_too_are_as_accurate_as_their_clients_reported(change, tmp_path):
    few = {"data.targets": "pen", "data.target-limit": 40, "data.source-limit": 60}
    run = finish(tmp_path / "run", {**few, **change})
    summary = json.loads((run / "summary.json").read_text())
    examples = family("digits").load("pen", "test", DataSpec())
    labels = fmtda.AdaptedModel.load(run, "pen").predict(examples.inputs[:]).labels
    right = int((labels == examples.labels[:]).sum())
    assert 100 * right / len(examples) == pytest.approx(summary["accuracy"]["pen"])


def test_the_likelihood_is_the_one_that_the_client_reported(adapted):
    last = json.loads((adapted / "metrics.jsonl").read_text().splitlines()[1])
    examples = family("digits").load("pen", "test", DataSpec())
    ours = fmtda.AdaptedModel.load(adapted, "pen").log_likelihood(examples.inputs[:]).mean().item()
    assert ours == pytest.approx(last["clients"]["pen/0000"]["evaluate"]["log-likelihood"], rel=1e-6)


def test_without_the_local_part_the_last_upload_serves_and_it_is_said(adapted, tmp_path):
    server_alone = shutil.copytree(adapted, tmp_path / "run", ignore=lambda folder, names: {"clients"} & set(names))
    model = fmtda.AdaptedModel.load(server_alone, "pen")
    assert "last uploaded" in model.parts and "--local" in model.parts
    assert model.head == "mean" and model.mixture is not None
    shutil.rmtree(server_alone / "uploads")
    alone = fmtda.AdaptedModel.load(server_alone, "pen")
    assert "F_g alone" in alone.parts
    assert alone.head == "global" and alone.mixture is None


def test_a_clients_own_folder_gives_what_the_run_directory_gives(adapted, tmp_path):
    folder = shutil.copytree(adapted / "clients" / "pen" / "0000", tmp_path / "pen" / "0000")
    server_alone = shutil.copytree(adapted, tmp_path / "run", ignore=lambda folder, names: {"clients"} & set(names))
    pictures = family("digits").load("pen", "test", DataSpec()).inputs[:8]
    ours = fmtda.AdaptedModel.load(server_alone, local=folder)
    assert ours.client == "pen/0000"
    assert torch.equal(ours(pictures), fmtda.AdaptedModel.load(adapted, "pen")(pictures))


def test_a_saved_model_predicts_the_same_and_tells_no_path(adapted, tmp_path):
    model = fmtda.AdaptedModel.load(adapted, "blend")
    model.save(tmp_path / "blend.safetensors")
    again = fmtda.AdaptedModel.load(tmp_path / "blend.safetensors")
    with pytest.raises(SettingsError, match="holds the model of one client; leave domain and local out"):
        fmtda.AdaptedModel.load(tmp_path / "blend.safetensors", "pen")
    pictures = family("digits").load("blend", "test", DataSpec()).inputs[:8]
    first, second = model.predict(pictures), again.predict(pictures)
    assert all(torch.equal(first.by_head[head], second.by_head[head]) for head in first.by_head)
    assert torch.equal(first.typicality, second.typicality)
    assert str(adapted).encode() not in (tmp_path / "blend.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"settings": {"data": "digits", "network": "small-cnn"}}, "written by an earlier version of fmtda; export it"),
        ({"settings": 3}, "no model of fmtda"),
        ([], "no model of fmtda"),
    ],
)
def test_a_file_that_tells_other_settings_is_refused(about, said, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, file, metadata={"fmtda": json.dumps(about)})
    with pytest.raises(SettingsError, match=f"{file}: .*{said}"):
        fmtda.AdaptedModel.load(file)


@pytest.mark.parametrize("domain", ["pen", "blend"])
def test_the_mixtures_choose_the_domain_that_the_pictures_are_of(domain, adapted):
    pictures = family("digits").load(domain, "test", DataSpec()).inputs[:40]
    choice = choose(adapted, None, lambda: pictures)
    assert choice.model.domain == domain
    assert domain in choice.account and sorted(choice.scores) == ["blend/0000", "pen/0000"]


def test_a_set_is_looked_at_all_over():
    files = list(range(1000))
    assert len(spread(files)) == 64 and spread(files)[0] == 0 and spread(files)[-1] > 980
    assert spread(files[:3]) == [0, 1, 2]


def test_other_inputs_than_the_runs_are_refused(adapted):
    with pytest.raises(ValueError, match=r"\(2, 1, 28, 28\): this model takes \(B, 3, 32, 32\)"):
        fmtda.AdaptedModel.load(adapted, "pen")(torch.zeros(2, 1, 28, 28))


def test_what_is_no_domain_no_run_and_no_folder_of_a_client_is_named(adapted, tmp_path):
    with pytest.raises(SettingsError, match="domain=mars: .* allowed are blend, pen"):
        fmtda.AdaptedModel.load(adapted, "mars")
    with pytest.raises(SettingsError, match="no domain named; this run adapted to blend, pen"):
        fmtda.AdaptedModel.load(adapted)
    with pytest.raises(SettingsError, match="no run here"):
        fmtda.AdaptedModel.load(tmp_path, "pen")
    with pytest.raises(SettingsError, match="no client's folder"):
        fmtda.AdaptedModel.load(adapted, "pen", local=tmp_path)
    with pytest.raises(SettingsError, match="this is a run directory and no client's folder"):
        fmtda.AdaptedModel.load(adapted, "pen", local=adapted)
    (tmp_path / "file").write_text("nothing")
    with pytest.raises(SettingsError, match="no model of fmtda"):
        fmtda.AdaptedModel.load(tmp_path / "file")
    assert clients_of(adapted, fmtda.AdaptedModel.load(adapted, "pen").settings) == ["blend/0000", "pen/0000"]


def test_a_run_that_draws_is_refused_with_what_to_do(tmp_path, generative_settings_of):
    from fmtda.server.run_directory import RunDirectory

    RunDirectory.create(generative_settings_of("ddpm", {"output": str(tmp_path / "run")}))
    with pytest.raises(SettingsError, match="workload=ddpm classifies nothing.*fmtda sample"):
        fmtda.AdaptedModel.load(tmp_path / "run", "pen")
