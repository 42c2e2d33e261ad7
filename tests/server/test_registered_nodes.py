"""The file that says which registered node is which client: read as written, refused in one line."""

import pytest

from fmtda.protocol.tables import SettingsError
from fmtda.server.registered_nodes import registered_nodes


def test_names_come_by_node_id(tmp_path):
    file = tmp_path / "nodes.toml"
    file.write_text('# by deploy\n[nodes]\n"18446744073709551615" = "svhn/0000"\n"7" = "Real World/0012"\n')
    assert registered_nodes(str(file)) == {2**64 - 1: "svhn/0000", 7: "Real World/0012"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"it has no table \[nodes\]"),
        ("nodes = 3", r"it has no table \[nodes\]"),
        ("[nodes]", r"it has no table \[nodes\]"),
        ("[nodes\n\x1b", "it is no TOML"),
        ('[nodes]\n"1" = "svhn/0000"\n"1" = "svhn/0001"', "it is no TOML"),
        ('[nodes]\n"1" = "svhn/0000"\n"2" = "svhn/0000"', "svhn/0000 is there twice; a client has one node"),
        ('[nodes]\n"1" = "svhn/0000"\n"01" = "svhn/0001"', "node 1 is there twice"),
        ('[nodes]\n"-1" = "svhn/0000"', "'-1' is no node id, expected a decimal number in quotes"),
        ('[nodes]\n"18446744073709551616" = "svhn/0000"', "is no node id"),
        ('[nodes]\n"١" = "svhn/0000"', "is no node id"),
        ('[nodes]\n"1" = 3', "node 1 is 3, expected a client's name in quotes"),
        ('[nodes]\n"1" = "../x"', "node 1: '../x' is no client's name"),
        ("a=" + "[" * 2000, "it is no TOML"),
    ],
)
def test_any_other_file_is_refused_in_one_line(text, said, tmp_path):
    file = tmp_path / "nodes.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=said) as caught:
        registered_nodes(str(file))
    assert str(caught.value).startswith(f"nodes-file={file}: ") and str(caught.value).isprintable()


def test_a_file_that_cant_be_read_is_refused_with_the_cause(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    for name, said in {"missing.toml": "No such file", ".": "Is a directory", "latin.toml": "it is no TOML"}.items():
        with pytest.raises(SettingsError, match=said):
            registered_nodes(str(tmp_path / name))
