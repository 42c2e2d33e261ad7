"""Registries: our lines, what installed packages offer, any place, and names that nothing has."""

import pathlib
import subprocess
import sys

import pytest

from fmtda.protocol.registry import Registry, UnknownName, names_alone
from fmtda.protocol.seeds import seed_for

LINES = {"path": "pathlib:Path", "tables": "fmtda.protocol.tables:Table", "broken": "fmtda.protocol.nowhere:Table"}


@pytest.fixture
def registry():
    return Registry("fmtda.tests.of-nobody", LINES)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package `NAME` with a class Plate, which it offers in a group of entry points under some names."""

    def install(name, group, **points):
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("\n".join([f"[{group}]", *(f"{n} = {p}" for n, p in points.items())]))
        (tmp_path / f"{name}.py").write_text("class Plate:\n    pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        return Registry(group, LINES)

    return install


def refusal(registry, name):
    with pytest.raises(UnknownName) as caught:
        registry[name]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_is_what_its_line_says(registry):
    assert registry["path"] is pathlib.Path
    assert registry.names() == tuple(registry) == ("path", "tables", "broken")
    assert "path" in registry and "pathlib:Path" not in registry


def test_the_names_alone_import_nothing():
    code = (
        "import sys; from fmtda.strategies.registry import ALGORITHMS; from fmtda.generative.registry import MODELS; "
        "print('dualadapt' in ALGORITHMS, 'ddpm' in MODELS, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True", "False"]


def test_any_place_can_be_named(registry):
    assert registry["fmtda.protocol.seeds:seed_for"] is seed_for


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pat", "no such name; did you mean path? allowed are path, tables, broken, or package.module:object"),
        ("zzz", "no such name; allowed are path, tables, broken, or package.module:object"),
        ("", "no such name; allowed are path, tables, broken, or package.module:object"),
        ("pathlib.Path", "no such name; allowed are path, tables, broken, or package.module:object"),
    ],
)
def test_a_name_that_nothing_has_is_refused_with_those_there_are(registry, name, said):
    assert refusal(registry, name) == said


@pytest.mark.parametrize(
    ("name", "place", "reason"),
    [
        ("broken", "fmtda.protocol.nowhere:Table", "No module named 'fmtda.protocol.nowhere'"),
        ("nowhere:Thing", "nowhere:Thing", "No module named 'nowhere'"),
        ("pathlib:Nothing", "pathlib:Nothing", "module 'pathlib' has no attribute 'Nothing'"),
        (":Thing", ":Thing", "Empty module name"),
    ],
)
def test_what_cant_be_imported_is_refused_with_the_reason(registry, name, place, reason):
    advice = "is its package installed here and on the clients, or its folder on PYTHONPATH?"
    assert refusal(registry, name) == f"{place} can't be imported ({reason}); {advice}"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no\\nlicence')", "RuntimeError: no licence"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("def", "SyntaxError: invalid syntax (MODULE.py, line 1)"),
    ],
)
def test_whatever_a_module_does_on_its_import_is_one_line(registry, code, reason, tmp_path, monkeypatch):
    module = f"plates_{abs(hash(code))}"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert f"({reason.replace('MODULE', module)})" in refusal(registry, f"{module}:Plate")


def test_installed_packages_add_to_a_registry_after_our_own(installed):
    registry = installed("sideboard", "fmtda.tests.some", plate="sideboard:Plate", bowl="sideboard:Bowl")
    assert registry.names() == ("path", "tables", "broken", "bowl", "plate")
    assert "plate" in registry
    assert "allowed are path, tables, broken, bowl, plate, or" in refusal(registry, "zzz")


def test_what_an_installed_package_offers_is_imported_when_it_is_asked_for(installed):
    registry = installed("cupboard", "fmtda.tests.one", plate="cupboard:Plate")
    assert "plate" in registry.names() and "cupboard" not in sys.modules
    assert registry["plate"] is sys.modules["cupboard"].Plate


def test_no_installed_package_takes_a_name_of_ours(installed):
    registry = installed("drawer", "fmtda.tests.taken", path="drawer:Plate")
    assert registry["path"] is pathlib.Path
    assert registry.names() == tuple(LINES)


def test_where_names_alone_are_taken_a_place_is_imported_by_nobody(tmp_path, monkeypatch):
    (tmp_path / "unasked.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("fmtda.test", {"path": "pathlib:Path"})
    with names_alone():
        assert registry["path"] is pathlib.Path
        for place in ("unasked:anything", "pathlib:PurePath"):
            with pytest.raises(UnknownName, match="no registered name but a place .*--allow-code"):
                registry[place]
    assert registry["pathlib:PurePath"] is pathlib.PurePath
    with pytest.raises(UnknownName, match="it ran"):
        registry["unasked:anything"]
