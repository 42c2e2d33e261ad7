"""The measurement of a training step: what a process reports, medians over processes, and the table."""

import pytest

from benchmarks import training_step


@pytest.mark.parametrize("variant", [training_step.AS_IT_COMES, training_step.BFLOAT16])
@pytest.mark.parametrize("name", ["small-cnn", "lraspp"])
def test_a_process_reports_time_pages_and_peak_of_its_steps(name, variant, monkeypatch):
    shape, _, _ = training_step.STEPS[name]
    monkeypatch.setitem(training_step.STEPS, name, (shape, 2, 2))
    found = training_step.steps(name, variant)
    assert list(found) == ["step_ms", "system_ms", "page_faults", "peak_mib"]
    assert found["step_ms"] > 0 and found["system_ms"] >= 0 and found["page_faults"] >= 0
    assert 50 < found["peak_mib"] < 20_000


def test_variants_are_compared_by_the_median_of_each_figure():
    found = [{"step_ms": 3.0, "page_faults": 1}, {"step_ms": 1.0, "page_faults": 5}, {"step_ms": 2.0, "page_faults": 9}]
    assert training_step._medians(found) == {"step_ms": 2.0, "page_faults": 5}


def test_the_table_has_a_row_a_network_and_a_column_a_variant():
    figures = {"step_ms": 12.4, "peak_mib": 300.2}
    lines = training_step.table({"small-cnn": {"kept": figures, "as it comes": figures}}).splitlines()
    assert lines[0] == "| network | kept | as it comes |"
    assert lines[2] == "| small-cnn | 12 ms, 300 MiB | 12 ms, 300 MiB |"
