"""Bad input ends at the start with one line: what was given, and what is allowed."""

import pytest

from fmtda.domains.examples import DataError
from fmtda.protocol.tables import SettingsError
from fmtda.server.startup import check_simulation, check_source, effective_settings
from fmtda.strategies.composition import every_default


def refusal(check, *arguments):
    with pytest.raises((SettingsError, DataError)) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("data", ["digits", "digit-five", "streets"])
def test_the_defaults_are_good_for_every_family(data):
    settings = effective_settings({**every_default(), "data.name": data})
    assert settings.data.source not in settings.target_domains


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"strategy": "fedprox"}, ["strategy=fedprox", "source-only, adabn, fedavg-self-training"]),
        ({"strategy": "fedmagic"}, ["strategy=fedmagic", "no such name", "dualadapt"]),
        ({"workload": "gan"}, ["workload=gan", "adaptation, ddpm, ncsn"]),
        ({"data.name": "faces"}, ["data.name=faces", "digits, digit-five"]),
        ({"data.source": "mnist"}, ["mnist", "handwritten, blend, fonts, street, pen"]),
        ({"data.targets": "pen,faces"}, ["faces", "handwritten, blend, fonts, street, pen"]),
        ({"data.targets": "pen,pen"}, ["targets=pen,pen", "twice"]),
        ({"data.targets": "pen,handwritten"}, ["data.targets=pen,handwritten", "handwritten is the source"]),
        ({"data.targets": ","}, ["data.targets=,", "handwritten, blend, fonts, street, pen"]),
        ({"clients": 3}, ["clients=3", "4 or more"]),
        ({"simulation.late": "faces"}, ["simulation.late=faces", "faces is not among data.targets="]),
        ({"simulation.late": "blend,fonts,street,pen", "clients": 1}, ["simulation.late=blend", "from the start"]),
        ({"simulation.late": "pen", "simulation.late-round": 9}, ["simulation.late-round=9", "rounds=3"]),
        ({"network.name": "resnet-1000"}, ["network.name=resnet-1000", "small-cnn, mcd-digits, m3sda-digits"]),
        ({"network.name": "mlp"}, ["network.name=mlp", "doesn't take inputs of 3x32x32"]),
        ({"network.name": "lraspp"}, ["network.name=lraspp", "a class a pixel", "one class an input"]),
        ({"inputs.scenery": True, "data.name": "streets"}, ["inputs.scenery=True", "set inputs.scenery=false"]),
        ({"strategy": "fmtda.domains.client:Client"}, ["strategy=fmtda.domains.client:Client", "no algorithm"]),
        ({"inputs.randomise": False}, ["inputs.scenery=True", "set inputs.randomise=true, or inputs.scenery=false"]),
        ({"privacy.noise": 1.0}, ["privacy.noise=1, privacy.mixture-noise=0", "set both above 0"]),
        ({"privacy.mixture-noise": 1.0}, ["privacy.noise=0, privacy.mixture-noise=1", "set both above 0"]),
        (
            {"privacy.noise": 1.0, "privacy.mixture-noise": 4.0, "strategy": "fed-mcd"},
            ["strategy=fed-mcd", "use dualadapt"],
        ),
        (
            {"privacy.mixture-floor": 9, "strategy": "adabn"},
            ["privacy.mixture-floor=9", "strategy=adabn", "use dualadapt"],
        ),
        ({"privacy.mixture-floor": 9, "data.name": "streets"}, ["mixture-floor=9", "data.name=streets", "a picture"]),
        (
            {"dualadapt.cache-features": False, "data.name": "streets"},
            ["dualadapt.cache-features=False", "set it to true"],
        ),
        ({"rounds": -1}, ["rounds=-1", "greater than or equal to 1"]),
        ({"epochs": 3}, ["epochs: no such key", "rounds"]),
        ({"guard": False}, ["guard: no such key", "did you mean dualadapt.guard?"]),
        (
            {"strategy": "fed-mcd", "dualadapt.guard": False},
            ["dualadapt.guard=False", "strategy=fed-mcd has no such key", "strategy=dualadapt has"],
        ),
    ],
    ids=lambda value: "-".join(f"{k}-{v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused_with_what_is_allowed(config, said):
    message = refusal(effective_settings, config)
    for part in said:
        assert part in message


def test_noise_without_the_package_that_accounts_for_it_is_refused(monkeypatch):
    monkeypatch.setattr("fmtda.strategies.dualadapt.client.is_installed", lambda: False)
    message = refusal(effective_settings, {"privacy.noise": 1.0, "privacy.mixture-noise": 4.0})
    assert "pip install -e '.[privacy]'" in message
    effective_settings({"privacy.mixture-floor": 9})


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "device=cuda" in refusal(effective_settings, {"device": "cuda"})


def test_more_clients_than_examples_are_refused(settings_of):
    message = refusal(
        check_simulation, settings_of({"data.targets": "pen,blend", "clients": 80, "data.target-limit": 30})
    )
    assert message.startswith("clients=80: 40 of them would share the 30 training examples of pen")


def test_as_many_clients_as_examples_are_allowed(settings_of):
    check_simulation(settings_of({"data.targets": "pen,blend", "clients": 60, "data.target-limit": 30}))


def test_the_minimum_of_examples_counts(settings_of):
    settings = settings_of({"data.targets": "pen", "clients": 10, "data.target-limit": 30, "data.min-examples": 4})
    assert "at least 4 each" in refusal(check_simulation, settings)


def digit_five(config=None):
    return effective_settings({"data.name": "digit-five", "clients": 3, **(config or {})})


def test_a_family_of_files_asks_for_its_folder():
    message = refusal(check_source, digit_five())
    assert "mnist" in message
    assert "--data-dir" in message


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    folder = str(tmp_path / "nowhere")
    assert folder in refusal(check_source, digit_five({"data.dir": folder}))


def test_a_folder_without_the_domain_is_refused(tmp_path):
    message = refusal(check_source, digit_five({"data.dir": str(tmp_path)}))
    assert "mnist" in message
    assert str(tmp_path) in message


def test_target_files_are_looked_at_too(tmp_path):
    settings = digit_five({"data.dir": str(tmp_path), "data.source": "fonts", "data.targets": "svhn"})
    check_source(settings)
    assert "svhn" in refusal(check_simulation, settings)
