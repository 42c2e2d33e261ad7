"""A simulated client's share of the machine: the line that resumes a run with the same one."""

from fmtda.face.client_resources import resume_line


def test_the_line_that_resumes_is_one_for_a_shell(settings_of, generative_settings_of):
    settings = settings_of({"output": "/tmp/my runs/a"})
    assert resume_line(settings, 1.0, 0.0) == "fmtda simulate --resume '/tmp/my runs/a'"
    assert resume_line(settings, 0.5, 0.25).startswith("fmtda simulate --resume '/tmp/my runs/a' --client-")
    settings = generative_settings_of("ddpm", {"output": "/tmp/a"})
    assert resume_line(settings, 1.0, 0.0) == "fmtda generate --resume /tmp/a"
