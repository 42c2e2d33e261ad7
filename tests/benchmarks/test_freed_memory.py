"""The measurement of kept memory: what a process reports, and medians over processes."""

import pytest

from benchmarks import freed_memory


@pytest.mark.parametrize("name", ["small-cnn", "lraspp"])
def test_a_process_reports_time_pages_and_peak_of_its_steps(name, monkeypatch):
    shape, _, _ = freed_memory.STEPS[name]
    monkeypatch.setitem(freed_memory.STEPS, name, (shape, 2, 2))
    found = freed_memory.steps(name, kept=False)
    assert list(found) == ["step_ms", "system_ms", "page_faults", "peak_mib"]
    assert found["step_ms"] > 0 and found["system_ms"] >= 0 and found["page_faults"] >= 0
    assert 50 < found["peak_mib"] < 20_000


def test_variants_are_compared_by_the_median_of_each_figure():
    found = [{"step_ms": 3.0, "page_faults": 1}, {"step_ms": 1.0, "page_faults": 5}, {"step_ms": 2.0, "page_faults": 9}]
    assert freed_memory._medians(found) == {"step_ms": 2.0, "page_faults": 5}
