"""Names of clients: which text is one, what is refused, and that none leads out of a folder."""

import random
import unicodedata

import pytest

from fmtda.protocol.client_names import (
    check_client_name,
    check_domain,
    client_name,
    client_names,
    domain_of,
    folder_of,
)
from fmtda.protocol.tables import SettingsError

GOOD = ["svhn", "mnist-m", "Real World", "art_painting", "0001TP", "v1.2", "-x", "_", "é", "домен", "画像", "a" * 64]
BAD = ["", " ", ".", "..", " a", "a ", ".a", "a.", "a..b", "a/b", "a\\b", "a\x00", "a\n", "a\tb", "\x1b[2J", "a" * 65]
BAD += ["<b>", "a:b", "a'b", 'a"b', "a&b", "a*b", "~", "$HOME", "a;b", "\u202eevil", "a\u200bb", "a\u00a0b", "e\u0301"]
BAD += ["\ud800", "\u3164", "a\u2028b", "𠀀" * 64, "\ufeffa", "a|b", "%2e%2e", "a%00"]


@pytest.mark.parametrize("domain", GOOD)
def test_letters_digits_blanks_dashes_underscores_and_single_dots_make_a_domain(domain):
    check_domain(domain)
    assert domain_of(client_name(domain, 3)) == domain


@pytest.mark.parametrize("domain", BAD)
def test_what_else_there_is_makes_none(domain):
    with pytest.raises(ValueError, match="is no name of a domain; allowed are letters") as caught:
        check_domain(domain)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    with pytest.raises(ValueError, match="is no client's name"):
        check_client_name(f"{domain}/0000")
    with pytest.raises(ValueError, match="is no name of a domain"):
        client_name(domain, 0)


@pytest.mark.parametrize("share", ["0000", "9999", "10000", "999999999"])
def test_a_share_is_written_in_one_way(share):
    check_client_name(f"pen/{share}")
    assert client_name("pen", int(share)) == f"pen/{share}"


@pytest.mark.parametrize(
    "share", ["", "0", "000", "00000", "01234", "-001", "+001", "1e10", "9999999999", "١٢٣٤", "0000\n", "00 0", "0x00"]
)
def test_a_share_in_another_way_is_refused(share):
    with pytest.raises(ValueError, match="is no client's name"):
        check_client_name(f"pen/{share}")


@pytest.mark.parametrize("name", ["pen", "/0000", "a/b/0000", "/etc/0000", "../../x/0000", "pen/../blend/0000"])
def test_a_name_has_one_slash(name):
    with pytest.raises(ValueError, match="is no client's name"):
        check_client_name(name)


ALPHABET = [
    *"ab09 -_./\\.:<>&'\"%~$*\x00\x01\x1b\n\r\t\x7f",
    "é",
    "e\u0301",
    "\u202e",
    "\u200b",
    "\u3164",
    "\ud800",
    "🙂",
]
PIECES = [*ALPHABET, "..", "/0000", "/0001", "/..", "pen", "blend", "PLOTLY_FIGURES", "<!--<script>", "a" * 300]


def test_five_hundred_hostile_names_are_refused_or_stay_below_their_folder(tmp_path):
    draw, passed = random.Random(3), 0
    root = tmp_path / "uploads"
    root.mkdir()
    for number in range(500):
        pieces = PIECES if number % 2 else [*"ab09 -_.é", "/0000", "pen"]  # half of them look like names
        name = "".join(draw.choice(pieces) for _ in range(draw.randint(0, 8)))
        name += draw.choice(["", "/0000", "/12345"])
        try:
            check_client_name(name)
        except ValueError as error:
            assert str(error).isprintable()
            with pytest.raises(ValueError):
                folder_of(name, root)
            continue
        passed += 1
        folder = folder_of(name, root)
        folder.mkdir(parents=True, exist_ok=True)
        assert folder.resolve().parent.parent == root.resolve()
        assert name.isprintable() and unicodedata.is_normalized("NFC", name)
    assert 30 < passed < 250
    assert {path.name for path in tmp_path.iterdir()} == {"uploads"}


def test_a_link_out_of_the_folder_is_no_place_for_a_client(tmp_path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "pen").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="the folder of pen/0000 is a link out of"):
        folder_of("pen/0000", tmp_path / "uploads")


def test_the_owners_own_domains_are_held_to_the_same(settings_of):
    for key in ("data.targets", "data.source"):
        with pytest.raises(SettingsError, match=rf"{key}=.*'\.\./x' is no name of a domain") as caught:
            settings_of({key: "../x"})
        assert "\n" not in str(caught.value)


def test_names_take_the_domains_in_turn():
    names = client_names(["blend", "pen", "street"], 5)
    assert names == ["blend/0000", "pen/0000", "street/0000", "blend/0001", "pen/0001"]


@pytest.mark.parametrize("clients", [4, 40, 403])
def test_no_two_partitions_share_a_name_and_domains_differ_by_one_client_at_most(clients):
    names = client_names(["blend", "fonts", "street", "pen"], clients)
    counts = [sum(domain_of(name) == domain for name in names) for domain in ("blend", "fonts", "street", "pen")]
    assert len(set(names)) == clients
    assert max(counts) - min(counts) <= 1


def test_the_domain_comes_back_out_of_a_name():
    assert domain_of(client_name("mnist-m", 12)) == "mnist-m"
