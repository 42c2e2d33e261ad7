"""Settings come from a TOML file, from -c KEY=VALUE and from named options; the later win, and bad ones are told."""

import os

import pytest
from invoked import refused

from fmtda.face.setting_options import read_config_file, read_pairs, settings_given
from fmtda.protocol.tables import SettingsError

FILE = """
rounds = 5
resume = true

[data]
alpha = 0.3
targets = "svhn,usps"

[dualadapt]
components = 7
personalise.on = true

[dualadapt.joining]
start = "global"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(FILE)
    return path


def test_tables_become_dotted_keys_and_values_keep_their_types(file):
    assert read_config_file(file) == {
        "rounds": 5,
        "resume": True,
        "data.alpha": 0.3,
        "data.targets": "svhn,usps",
        "dualadapt.components": 7,
        "dualadapt.personalise.on": True,
        "dualadapt.joining.start": "global",
    }


def test_pairs_win_over_the_file_and_named_options_over_both(file):
    named = {"data.alpha": 0.1, "seed": None, "clients": 4}
    given = settings_given(file, ["rounds=2", "data.alpha=0.2", "dualadapt.components=9"], named)
    assert given == read_config_file(file) | {
        "rounds": "2",
        "data.alpha": 0.1,
        "dualadapt.components": "9",
        "clients": 4,
    }


def test_nothing_given_is_nothing_set():
    assert settings_given(None, None) == {}


def test_the_value_of_a_pair_may_hold_equals_signs_and_be_empty():
    assert read_pairs([" data.dir = /a=b", "data.source="]) == {"data.dir": "/a=b", "data.source": ""}


def test_a_key_given_twice_is_refused_with_both_values():
    with pytest.raises(SettingsError, match="-c rounds=3 and -c rounds=5"):
        read_pairs(["rounds=3", "seed=1", " rounds = 5 "])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'targets = ["svhn", "usps"]', ("targets is a list", "text, a whole number, a number, true and false")),
        (b"[dualadapt]\nplaces = [1, 2]", ("dualadapt.places is a list",)),
        (b"[[join]]\nround = 1", ("join is a list",)),
        (b"[data]\nsince = 2026-01-31", ("data.since is a date", "text, a whole number")),
        (b"since = 2026-01-31T10:00:00Z", ("since is a date",)),
        (b"since = 10:00:00", ("since is a time",)),
        (b'"data.source" = "svhn"\n[data]\nsource = "usps"', ("data.source is given twice",)),
        (b"rounds = 5\nrounds = 6\n", ("not TOML", "line 2")),
        (b"rounds: 5", ("not TOML", "KEY = VALUE")),
        (b"rounds = " + b"9" * 5000, ("not TOML",)),
        (b"x = " + b"[" * 3000 + b"]" * 3000, ("nested too deeply",)),
        (b"[" + b".".join([b"a"] * 3000) + b"]\nx = 1", ("nested too deeply",)),
        (b'source = "caf\xe9"', ("byte 13", "UTF-8")),
    ],
)
def test_what_a_file_can_not_hold_is_named_in_one_line(content, named, tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_config_file(path)
    message = str(caught.value)
    assert message.startswith(f"--config {path}: ") and "\n" not in message
    for text in named:
        assert text in message


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        read_config_file(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="directory"):
        read_config_file(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_named(file):
    file.chmod(0)
    with pytest.raises(SettingsError, match="Permission denied"):
        read_config_file(file)


NO_SUCH_KEY = "dualadapt.component: "
COMMANDS = [
    (("simulate", "--output", "out"), NO_SUCH_KEY),
    (("generate", "ddpm", "--output", "out"), NO_SUCH_KEY),
    (("join", "run", "--domain", "pen", "--output", "out"), "run: no run here"),  # the run says which keys there are
    (("benchmark", "--output", "out"), NO_SUCH_KEY),
]


@pytest.mark.parametrize(("command", "said"), COMMANDS, ids=[words[0] for words, _ in COMMANDS])
def test_every_command_that_trains_takes_both_options(command, said, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "rounds=3 and -c rounds=5" in refused(*command, "-c", "rounds=3", "--set", "rounds=5")
    assert "run.toml: can't be read" in refused(*command, "--config", "no/run.toml")
    file.write_text("[dualadapt]\ncomponent = 5")
    assert said in refused(*command, "--config", file)
    assert not (tmp_path / "out").exists()


def test_one_setting_given_as_a_file_is_told_about_the_other_option(tmp_path):
    assert "-c KEY=VALUE" in refused("simulate", "--config", "rounds=5", "--output", tmp_path / "run")
