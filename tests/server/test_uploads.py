"""What the server keeps of the clients' uploads: the last F_l and W_T of each, and W_S of the final G."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmtda.server import uploads
from fmtda.server.app import run
from fmtda.server.run_directory import RunDirectory
from fmtda.server.writing import WriteError


def test_the_last_uploads_and_the_next_rounds_source_mixture_are_kept(grid_of, silence, settings_of, tmp_path):
    settings = settings_of(
        {"data.targets": "pen,blend", "clients": 2, "rounds": 1, "data.target-limit": 40, "data.source-limit": 60}
    )
    settings = settings.changed({"output": str(tmp_path / "run")})
    run(grid_of.simulated(2), settings, silence)
    kept = RunDirectory(tmp_path / "run").uploads
    assert uploads.senders(kept) == ["blend/0000", "pen/0000"]
    for name in uploads.senders(kept):
        own = load_file(tmp_path / "run" / "clients" / name / "uploaded.safetensors")
        sent = uploads.read(kept / name / uploads.FILE)
        assert sent.keys() == own.keys()
        assert all(torch.equal(sent[array], own[array]) for array in own)
    mixture = uploads.read(kept / uploads.SOURCE_MIXTURE)
    grid = grid_of.simulated(2)
    run(grid, settings.changed({"rounds": 2, "resume": True}), silence)
    broadcast = next(m.content["source_mixture"] for m in grid.sent if "source_mixture" in m.content)
    assert all(np.array_equal(mixture[name].numpy(), array.numpy()) for name, array in broadcast.items())


def test_a_folder_that_cant_be_written_to_is_named(tmp_path, message_to, client_of):
    (tmp_path / "uploads").write_text("a file")
    with pytest.raises(WriteError, match="uploads"):
        uploads.keep(tmp_path / "uploads", {"pen/0000": message_to(client_of())})
