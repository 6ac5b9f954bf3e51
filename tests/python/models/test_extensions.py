"""Networks of other packages are found by their entry points."""

import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest
from ghostsr_ext.checkpoints import KeyMapping, register_key_mapping
from ghostsr_ext.checkpoints.key_mappings import known_key_mappings
from ghostsr_ext.errors import InputError
from ghostsr_ext.models import (
    EDSR,
    create_model,
    extensions,
    model_from_config,
    preset_names,
    registry,
)


class Found(EDSR):
    architecture = "found"


calls: list[str] = []


def register_found() -> None:
    calls.append("called")
    registry.register_model("found_by_a_function", Found)


NO_NETWORK = 3


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_presets", dict(registry._presets))
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))
    monkeypatch.setattr(extensions, "_begun", set())
    monkeypatch.setattr(extensions, "_failures", {})
    monkeypatch.delenv("GHOSTSR_IMPORT", raising=False)
    calls.clear()


def _install(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """Pretend that a package has entry points of these values."""
    entries = [
        EntryPoint(f"entry{number}", value, extensions.ENTRY_POINT_GROUP)
        for number, value in enumerate(values)
    ]
    monkeypatch.setattr(extensions, "entry_points", lambda group: entries)


def test_a_class_is_registered_under_the_name_of_its_entry_point(monkeypatch) -> None:
    _install(monkeypatch, f"{__name__}:Found")

    assert isinstance(create_model("entry0", blocks=1, features=4), Found)
    assert "entry0" in preset_names()


def test_a_function_is_called_once(monkeypatch) -> None:
    _install(monkeypatch, f"{__name__}:register_found")

    assert isinstance(create_model("found_by_a_function", blocks=1, features=4), Found)
    preset_names()
    assert calls == ["called"]


def test_nothing_is_loaded_for_a_network_of_the_package(monkeypatch) -> None:
    _install(monkeypatch, f"{__name__}:register_found")

    create_model("edsr_baseline", blocks=1, features=4)
    model_from_config({"architecture": "edsr", "blocks": 1, "features": 4})

    assert calls == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package.networks", "ModuleNotFoundError: No module named 'no_such_package'"),
        (f"{__name__}:no_such_name", "AttributeError: "),
        (f"{__name__}:NO_NETWORK", "InputError: found a int; a module, a subclass of SRModel"),
    ],
)
def test_a_package_that_cannot_be_loaded_stops_no_other_and_is_told(
    monkeypatch, value: str, reason: str
) -> None:
    _install(monkeypatch, value, f"{__name__}:Found")

    assert "entry1" in preset_names()
    with pytest.raises(InputError) as error:
        create_model("unknown")
    assert f"entry point 'entry0' of a package cannot be loaded ({reason}" in str(error.value)


def test_the_variable_names_modules(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "named_by_variable.py").write_text(
        "from ghostsr_ext.models import EDSR, register_model\n"
        "class Named(EDSR):\n    architecture = 'named'\n"
        "register_model('named', Named)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("GHOSTSR_IMPORT", "json, named_by_variable")

    assert create_model("named", blocks=1, features=4).architecture == "named"


def test_a_wrong_variable_is_told(monkeypatch) -> None:
    monkeypatch.setenv("GHOSTSR_IMPORT", "no_such_module")

    with pytest.raises(InputError, match="GHOSTSR_IMPORT no_such_module: cannot be imported"):
        create_model("unknown")


def test_a_key_mapping_may_be_registered_twice_but_its_name_only_once() -> None:
    mapping = known_key_mappings()[0]

    register_key_mapping(mapping)

    assert known_key_mappings().count(mapping) == 1
    with pytest.raises(InputError, match="is registered already"):
        register_key_mapping(KeyMapping(mapping.name, ("other.weight",), mapping.read))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (KeyMapping("", ("a.weight",), print), "needs a name, and keys as its marks"),
        (KeyMapping("Mine", (), print), "needs a name, and keys as its marks"),
        ("Mine", "found 'Mine'; a KeyMapping with a function to read it is allowed"),
    ],
)
def test_a_key_mapping_that_tells_nothing_is_refused(mapping, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_key_mapping(mapping)


def test_one_distribution_is_named_where_it_is_known(monkeypatch, tmp_path: Path) -> None:
    info = tmp_path / "tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ghostsr.models]\ntiny = no_such_package\n")
    entries = Distribution.at(info).entry_points
    monkeypatch.setattr(extensions, "entry_points", lambda group: entries.select(group=group))

    with pytest.raises(InputError, match="entry point 'tiny' of package tiny-package cannot"):
        create_model("unknown")
