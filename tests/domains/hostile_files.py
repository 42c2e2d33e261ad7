"""Makes picture files that somebody hostile would, and measures what a child process takes to read something."""

import json
import os
import struct
import subprocess
import sys
import zlib


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, before: bytes = b"", colour: int = 2, after: bytes = b"") -> bytes:
    """One-coloured, packed as small as zlib can; chunks may stand before and after the pixels."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packing = zlib.compressobj(9)
    rows = [packing.compress(bytes(1 + width * channels)) for _ in range(height)]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", b"".join([*rows, packing.flush()]))
    return b"\x89PNG\r\n\x1a\n" + head + before + pixels + after + chunk(b"IEND", b"")


def announced_png(width: int, height: int) -> bytes:
    """Nothing but a head."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def rle_bmp(width: int, height: int) -> bytes:
    """A pixel a row, then the mark of a row's end; the other pixels are zero."""
    rows, palette = b"\x01\x07\x00\x00" * height, bytes(1024)
    start = 14 + 40 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + palette + rows


def measured(code: str, **values: object) -> dict:
    """Do as `measured_each` for one piece of code."""
    return measured_each({"": code}, **values)[""]


def measured_each(codes: dict[str, str], **values: object) -> dict[str, dict]:
    """Run code in a child; tell by name `said`, the error or nothing, and the seconds and MB that it took more.

    The code finds `values` by name, and what it needs imported is imported already.
    """
    given = {"codes": codes, "values": values}
    program = f"""
import json, resource, time
import numpy, torch
from pathlib import Path
from fmtda.domains import feature_files, molecule_files
from fmtda.domains.decoding import decode_picture
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.domains.scene_folders import decode_scene
from fmtda.domains.scene_layouts import SceneFiles
given = json.loads({json.dumps(json.dumps(given, default=str))})
globals().update(given["values"])
family("digit-five"), family("feature-vectors")
def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
took = {{}}
for name, code in given["codes"].items():
    before, started, said = memory(), time.process_time(), ""
    try:
        exec(code)
    except DataError as error:
        said = str(error)
    took[name] = dict(said=said, seconds=time.process_time() - started, megabytes=memory() - before)
print(json.dumps(took))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])
