"""Pictures of somebody hostile: one clear line each, at once and in little memory; honest ones as ever."""

import io
import os
import random
import socket
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fmtda.domains.decoding import decode_picture
from fmtda.domains.picture_files import HEAD_BYTES, MOST_SCANS, opened_picture
from fmtda.domains.scene_folders import decode_scene
from fmtda.domains.scene_layouts import SceneFiles
from tests.domains.hostile_files import announced_png, chunk, measured, measured_each, png, rle_bmp
from tests.domains.refusals import refused

NO_TABLE = np.zeros(0, np.int64)


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(mode="RGB", size=(40, 30)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"
OTHERS = {
    "EPS": EPS,
    "GIF": encoded(noise("P"), "GIF"),
    "TIFF": encoded(noise(), "TIFF"),
    "ICO": encoded(noise(), "ICO"),
    "TGA": encoded(noise(), "TGA"),
    "PDF": b"%PDF-1.4\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PPM": encoded(noise(), "PPM"),
}


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_of_another_format_is_refused_whatever_it_is_called(form, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # where a Ghostscript would leave a trace
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "x.png").write_bytes(OTHERS[form])
    refused(lambda: decode_picture(tmp_path / "x.png", 8, 8), r"x\.png is damaged or no picture \(none of JPEG, PNG")
    assert not (tmp_path / "started").exists()


def test_the_issues_picture_takes_neither_memory_nor_time(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(png(13_000, 13_000, colour=0))
    assert file.stat().st_size < 200_000
    took = measured("decode_picture(file, 96, 96)", file=file)
    assert "x.png has 13,000 x 13,000 pixels; at most 64 million are read: shrink the picture" in took["said"]
    assert took["megabytes"] < 50 and took["seconds"] < 1


def test_the_largest_that_is_read_stays_far_below_a_gigabyte(tmp_path):
    codes = {}
    for colour in (2, 6):
        (tmp_path / f"{colour}.png").write_bytes(png(8_000, 8_000, colour=colour))
        file = f"Path(folder, '{colour}.png')"
        codes[f"{colour}"] = f"decode_picture({file}, 96, 96)"
        codes[f"{colour}, as a scene"] = f"decode_scene(SceneFiles({file}, None, 'test'), None, 96, 96)"
    took = measured_each(codes, folder=tmp_path)
    assert sum(each["megabytes"] for each in took.values()) < 600 and not any(each["said"] for each in took.values())


@pytest.mark.parametrize(
    "size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (9_500, 9_500), (65_536, 2), (0, 5), (5, 0)]
)
def test_a_head_alone_is_enough_to_be_refused(size, tmp_path):
    (tmp_path / "x.png").write_bytes(announced_png(*size) + chunk(b"IDAT", zlib.compress(b"")))
    refused(lambda: decode_picture(tmp_path / "x.png", 8, 8), r"x\.png .*(pixel|damaged).*(shrink|remove)")


def test_a_webp_takes_more_memory_so_fewer_pixels_are_read(tmp_path):
    for side in (5_000, 8_000):
        content = encoded(Image.new("RGB", (side, side)), "WEBP", lossless=True, method=0)
        (tmp_path / f"{side}.webp").write_bytes(content)
    took = measured("decode_picture(file, 96, 96)", file=tmp_path / "8000.webp")
    assert "at most 32 million of a WEBP are read" in took["said"] and took["megabytes"] < 100
    took = measured("decode_picture(file, 96, 96)", file=tmp_path / "5000.webp")
    assert took["said"] == "" and took["megabytes"] < 600


def test_packed_bitmaps_are_unpacked_slowly_so_fewer_pixels_are_read(tmp_path):
    (tmp_path / "x.bmp").write_bytes(rle_bmp(8_000, 7_900))
    took = measured("decode_picture(file, 96, 96)", file=tmp_path / "x.bmp")
    assert "at most 4 million of a BMP packed by RLE" in took["said"] and took["seconds"] < 1
    (tmp_path / "y.bmp").write_bytes(rle_bmp(40, 30))
    assert decode_picture(tmp_path / "y.bmp", 30, 40).shape == (3, 30, 40)


def scans(count, side):
    """A progressive JPEG whose first scan is repeated."""
    content = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    first = content.index(b"\xff\xda")
    second = content.index(b"\xff\xda", first + 2)
    return content[:first] + content[first:second] * count + content[second:]


def test_a_jpeg_of_many_scans_is_refused_before_it_costs_minutes(tmp_path):
    (tmp_path / "x.jpg").write_bytes(scans(2_000, 4_000))
    took = measured("decode_picture(file, 96, 96)", file=tmp_path / "x.jpg")
    assert f"x.jpg has more than {MOST_SCANS} scans" in took["said"] and took["seconds"] < 1


def test_what_follows_a_jpeg_counts_for_nothing(tmp_path):
    """Telephones append films, and second pictures; their thumbnails are JPEGs too."""
    for progressive in (False, True):
        plain = encoded(noise(), "JPEG", progressive=progressive)
        thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 * len(b"\xff\xda\xff\xd9")) + b"\xff\xda\xff\xd9" * 6
        (tmp_path / "a.jpg").write_bytes(plain)
        (tmp_path / "b.jpg").write_bytes(plain[:2] + thumbnail + plain[2:] + b"\xff\xda\0\2" * 500)
        assert np.array_equal(decode_picture(tmp_path / "a.jpg", 30, 40), decode_picture(tmp_path / "b.jpg", 30, 40))


TEXT = zlib.compress(bytes(200 * 2**20))
PNG_CHUNKS = {
    "packed text": chunk(b"zTXt", b"a\0\0" + TEXT),
    "international text": chunk(b"iTXt", b"a\0\1\0\0\0" + TEXT),
    "profile": chunk(b"iCCP", b"a\0\0" + TEXT),
    "profile of junk": chunk(b"iCCP", b"a\0\0" + b"junk" * 9),
    "many packed texts": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1))) * 100,
    "a long head": chunk(b"tEXt", b"a\0" + bytes(HEAD_BYTES + 1)),
    "many chunks": chunk(b"abCd", b"") * 300_000,
    "exif of junk": chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 4_000),
}


def test_chunks_of_a_png_are_bounded(tmp_path):
    codes = {}
    for kind, content in PNG_CHUNKS.items():
        for place in ("before", "after"):
            (tmp_path / f"{kind} {place}.png").write_bytes(png(8, 8, **{place: content}))
            codes[f"{kind} {place}"] = f"decode_picture(Path(folder, '{kind} {place}.png'), 8, 8)"
    for what, took in measured_each(codes, folder=tmp_path).items():
        assert took["megabytes"] < 250 and took["seconds"] < 2, what
        assert took["said"] == "" or f"{what}.png is damaged or no picture" in took["said"]
        if "packed" in what or "many" in what or what == "a long head before":
            assert took["said"], what


def test_exif_entries_that_all_point_to_one_place_are_bounded(tmp_path):
    """Each would be a copy of all of it: 30,000 entries of 4 MB."""
    count = 30_000
    entries = b"".join(struct.pack(">HHLL", tag, 7, 4_000_000, 0) for tag in range(count))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", count) + entries + bytes(4 + 4_000_000)
    (tmp_path / "x.png").write_bytes(png(8, 8, before=chunk(b"eXIf", exif)))
    took = measured("decode_picture(file, 8, 8)", file=tmp_path / "x.png")
    assert took["megabytes"] < 250 and took["seconds"] < 3


def test_a_file_without_end_is_not_read(tmp_path):
    with (tmp_path / "x.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8L")
        file.truncate(4 * 2**30)
    took = measured("decode_picture(file, 8, 8)", file=tmp_path / "x.webp")
    assert "x.webp has 4,096 MB; at most 256 are read" in took["said"] and took["megabytes"] < 50


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
def test_damage_anywhere_is_one_line_or_none(form, tmp_path):
    content = encoded(noise(), form)
    generator = random.Random(form)
    for trial in range(400):
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 3, 30))):
            damaged[generator.randrange(min(len(damaged), generator.choice((60, 10**9))))] = generator.randrange(256)
        file = tmp_path / f"{trial}.png"
        file.write_bytes(damaged[: generator.choice((len(damaged), generator.randrange(len(damaged))))] or b"\0")
        try:
            assert decode_picture(file, 8, 8).shape == (3, 8, 8)
        except ValueError as error:
            assert type(error).__name__ == "DataError" and file.name in str(error) and "\n" not in str(error)


MODES = {"RGB": "PNG", "RGBA": "PNG", "P": "PNG", "L": "PNG", "LA": "PNG", "1": "PNG", "I;16": "PNG", "CMYK": "JPEG"}


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("mode", MODES)
def test_honest_pictures_are_decoded_as_ever(mode, orientation, tmp_path):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image = noise("L").convert("I;16") if mode == "I;16" else noise(mode)
    image.save(tmp_path / "x", MODES[mode], exif=exif)
    with Image.open(tmp_path / "x") as reopened:
        upright = ImageOps.exif_transpose(reopened).convert("RGB")
        stored = reopened.convert("RGB").resize((16, 20), Image.Resampling.BILINEAR)
    expected = ImageOps.fit(upright, (16, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_picture(tmp_path / "x", 20, 16), np.asarray(expected).transpose(2, 0, 1))
    as_scene, _ = decode_scene(SceneFiles(tmp_path / "x", None, "test"), NO_TABLE, 20, 16)
    assert np.array_equal(as_scene, np.asarray(stored).transpose(2, 0, 1)), "a scene is left as it is stored"


@pytest.mark.parametrize("form", ["PNG", "WEBP", "MPO"])
def test_of_several_frames_the_first_is_read(form, tmp_path):
    first, others = noise(), [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    lossless = {"lossless": True} if form == "WEBP" else {}
    first.save(tmp_path / "x.png", form, save_all=True, append_images=others, **lossless)
    with Image.open(tmp_path / "x.png") as reopened:
        assert reopened.n_frames == 3
        expected = np.asarray(reopened.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode_picture(tmp_path / "x.png", 30, 40), expected)


def special(kind, place):
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        short = os.getcwd()
        os.chdir(place.parent)  # the address of a socket is short
        try:
            socket.socket(socket.AF_UNIX).bind(place.name)
        finally:
            os.chdir(short)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "empty":
        place.touch()
    elif kind == "link to nothing":
        place.symlink_to(place.with_name("nothing"))
    else:
        place.symlink_to(place)


SPECIAL = {
    "folder": "is a folder and no file",
    "pipe": "is a pipe and no file",
    "socket": "is a socket and no file",
    "device": "is a device and no file",
    "empty": r"is damaged or no picture \(it is empty\)",
    "link to nothing": "is not there, or a link to nothing",
    "link to itself": "can't be read",
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused_at_once(kind, tmp_path):
    place = tmp_path / "x.png"
    special(kind, place)
    failed = []
    thread = threading.Thread(
        target=lambda: failed.append(pytest.raises(ValueError, decode_picture, place, 8, 8)), daemon=True
    )
    thread.start()
    thread.join(20)
    assert failed, "still waiting"
    failed[0].match(rf"x\.png {SPECIAL[kind]}")


def test_a_file_that_may_not_be_read_says_so(tmp_path):
    file = tmp_path / "x.png"
    noise().save(file)
    file.chmod(0)
    user = os.geteuid()
    if not user:
        os.seteuid(65534)
    try:
        refused(lambda: decode_picture(file, 8, 8), r"x\.png can't be read \(Permission denied\); give the account")
    finally:
        os.seteuid(user)


def test_a_name_of_control_characters_or_no_utf8_is_shown_as_escapes(tmp_path):
    for name, shown in ((b"a\x1b[31m\n.png", r"a\\x1b\[31m\\n\.png"), (b"b\xff.png", r"b\\udcff\.png")):
        file = tmp_path / os.fsdecode(name)
        file.write_bytes(b"junk")
        refused(lambda file=file: decode_picture(file, 8, 8), f"{shown} is damaged")
        str(pytest.raises(ValueError, decode_picture, file, 8, 8).value).encode()
        noise().save(file, "PNG")
        assert decode_picture(file, 8, 8).shape == (3, 8, 8)


def test_one_large_picture_a_process_is_decoded_at_a_time(tmp_path):
    (tmp_path / "x.png").write_bytes(png(4_000, 4_000))
    inside, entered = threading.Event(), []

    def enter():
        with opened_picture(tmp_path / "x.png"):
            entered.append(inside.is_set())

    with opened_picture(tmp_path / "x.png"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.5)
        assert not entered
        inside.set()
    thread.join(20)
    assert entered == [True]
