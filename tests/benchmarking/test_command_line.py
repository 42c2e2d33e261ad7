import pytest

from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.domains.examples import DataError
from fmtda.protocol.tables import SettingsError


def test_the_run_config_comes_out_as_a_dict_and_the_last_value_of_a_key_counts():
    parser = command_line("What it measures.")
    given = parser.parse_args(["-c", "rounds=3", "--set", "data.dir=/a=b", "-c", " rounds = 5 "])
    assert given.config == {"rounds": "5", "data.dir": "/a=b"}
    assert parser.parse_args([]).config == {}


@pytest.mark.parametrize("text", ["rounds", "=5", " =5"])
def test_what_is_no_pair_is_named(text, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line("What it measures.", "python -m benchmarks.some").parse_args(["-c", text])
    assert caught.value.code == 2
    assert f"python -m benchmarks.some: error: -c {text}: expected KEY=VALUE" in capsys.readouterr().err


def test_a_refusal_is_a_line_for_each_problem_and_status_2(capsys):
    with pytest.raises(SystemExit) as caught, refusals():
        raise SettingsError("rounds=0: at least 1\nseed=x: a number")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "fmtda: error: rounds=0: at least 1\nfmtda: error: seed=x: a number\n"


def test_a_refusal_of_data_is_one_line_whatever_their_names_hold(capsys):
    with pytest.raises(SystemExit) as caught, refusals():
        raise DataError("a\nfmtda: all is well\x1b[2J.png: damaged")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "fmtda: error: a\\nfmtda: all is well\\x1b[2J.png: damaged\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), refusals():
        raise ZeroDivisionError
