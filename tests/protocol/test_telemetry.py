"""What libraries would tell their makers is off in every process of ours, unless the owner asked for it."""

import os
import subprocess
import sys

from fmtda.protocol import telemetry

TOLD = "import os; from fmtda.protocol import telemetry; print([os.environ.get(name) for name in telemetry.OFF])"


def without(*names):
    return {key: value for key, value in os.environ.items() if key not in names}


def test_the_command_line_switches_everything_off_before_flower_is_there():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom fmtda.face.command_line import cli\n"
        "assert 'flwr' not in sys.modules and 'ray' not in sys.modules\n"
        "assert CliRunner().invoke(cli, ['data', 'list']).exit_code == 0\n" + TOLD
    )
    words = [sys.executable, "-c", code]
    told = subprocess.run(words, env=without(*telemetry.OFF), capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(list(telemetry.OFF.values()))


def test_who_asks_for_telemetry_keeps_it(monkeypatch):
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.delenv("FLWR_DISABLE_UPDATE_CHECK", raising=False)
    telemetry.switch_off()
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "1"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"


def test_flower_reads_the_variables_as_we_set_them():
    code = (
        "from flwr.supercore import telemetry, update_check\n"
        "update_check._start_flwr_update_check_refresh_thread = lambda *_: print('asks')\n"
        "update_check.warn_if_flwr_update_available('flwr')\n"
        "future = telemetry.event(telemetry.EventType.PING)\nprint(future.result())"
    )
    words = [sys.executable, "-c", code]
    told = subprocess.run(words, env={**os.environ, **telemetry.OFF}, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "disabled"
