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


@pytest.mark.parametrize("data", ["digits", "digit-five"])
def test_the_defaults_are_good_for_every_family(data):
    settings = effective_settings({**every_default(), "data.name": data})
    assert settings.data.source not in settings.target_domains


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"strategy": "fedprox"}, ["strategy=fedprox", "dualadapt, source-only, adabn, fedavg-self-training"]),
        ({"data": "faces"}, ["'faces'", "digits, digit-five"]),
        ({"source": "mnist"}, ["mnist", "handwritten, blend, fonts, street, pen"]),
        ({"targets": "pen,faces"}, ["faces", "handwritten, blend, fonts, street, pen"]),
        ({"targets": "pen,pen"}, ["targets=pen,pen", "twice"]),
        ({"targets": "pen,handwritten"}, ["targets=pen,handwritten", "handwritten is the source"]),
        ({"targets": ","}, ["targets=,", "handwritten, blend, fonts, street, pen"]),
        ({"clients": 3}, ["clients=3", "4 or more"]),
        ({"joining": "faces"}, ["joining=faces", "faces is not among targets="]),
        ({"joining": "blend,fonts,street,pen", "clients": 1}, ["joining=blend", "from the start"]),
        ({"joining": "pen", "join-round": 9}, ["join-round=9", "rounds=3"]),
        ({"network": "resnet-1000"}, ["network=resnet-1000", "small-cnn, mcd-digits, m3sda-digits"]),
        ({"randomise": False}, ["scenery", "set randomise=true, or scenery=false"]),
        ({"privacy-noise": 1.0}, ["privacy-noise=1, mixture-noise=0", "set both above 0"]),
        ({"mixture-noise": 1.0}, ["privacy-noise=0, mixture-noise=1", "set both above 0"]),
        ({"privacy-noise": 1.0, "mixture-noise": 4.0, "strategy": "fed-mcd"}, ["strategy=fed-mcd", "use dualadapt"]),
        ({"mixture-floor": 9, "strategy": "adabn"}, ["mixture-floor=9", "strategy=adabn", "use dualadapt"]),
        ({"mixture-floor": 9, "data": "streets"}, ["mixture-floor=9", "data=streets", "a picture"]),
        ({"rounds": -1}, ["rounds=-1", "greater than or equal to 1"]),
        ({"epochs": 3}, ["epochs: no such key", "rounds"]),
    ],
    ids=lambda value: "-".join(f"{k}-{v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused_with_what_is_allowed(config, said):
    message = refusal(effective_settings, config)
    for part in said:
        assert part in message


def test_noise_without_the_package_that_accounts_for_it_is_refused(monkeypatch):
    monkeypatch.setattr("fmtda.server.startup.is_installed", lambda: False)
    message = refusal(effective_settings, {"privacy-noise": 1.0, "mixture-noise": 4.0})
    assert "pip install -e '.[privacy]'" in message
    effective_settings({"mixture-floor": 9})


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


def digit_five(**config):
    return effective_settings({"data": "digit-five", "clients": 3, **config})


def test_a_family_of_files_asks_for_its_folder():
    message = refusal(check_source, digit_five())
    assert "mnist" in message
    assert "--data-dir" in message


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    folder = str(tmp_path / "nowhere")
    assert folder in refusal(check_source, digit_five(**{"data-dir": folder}))


def test_a_folder_without_the_domain_is_refused(tmp_path):
    message = refusal(check_source, digit_five(**{"data-dir": str(tmp_path)}))
    assert "mnist" in message
    assert str(tmp_path) in message


def test_target_files_are_looked_at_too(tmp_path):
    settings = digit_five(**{"data-dir": str(tmp_path), "source": "fonts", "targets": "svhn"})
    check_source(settings)
    assert "svhn" in refusal(check_simulation, settings)
