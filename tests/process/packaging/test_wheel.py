"""The wheel holds every package, recipe, profile and marker, and nothing else; its version is said once."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from support.sites.install_sites import PACKAGES, ROOT

from edge_contracts import __version__

NOT_SHIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def files_below(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if not NOT_SHIPPED & set(path.parts)}


def test_the_wheel_holds_exactly_the_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, f"edgewright-{__version__}.dist-info"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_in_the_wheel(wheel: zipfile.ZipFile, package: str) -> None:
    expected = {f"{package}/{name}" for name in files_below(PACKAGES[package])}
    assert expected <= set(wheel.namelist())
    assert f"{package}/py.typed" in expected


def test_profiles_units_and_recipes_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    shipped = {f"edgewright/firmware_configs/{name}" for name in files_below(ROOT / "firmware_configs")}
    shipped |= {f"edge_compression/recipes/files/{name}" for name in files_below(ROOT / "compression" / "recipes")}
    assert shipped <= set(wheel.namelist())
    assert "edgewright/firmware_configs/profiles/pi-4.toml" in shipped


def test_an_installed_wheel_finds_its_profiles_and_recipes(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import edge_agent.config.profiles as p;"
        "import edge_compression.recipes.recipe as r;"
        "print(p.__file__.startswith(sys.argv[1]), len(p.profile_names()), p.load_profile('pi-4').name,"
        "len(r.load_recipes('onnx')) > 3)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.split() == ["True", "7", "pi-4", "True"], result.stderr


def test_tests_and_notes_are_not_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert not [name for name in wheel.namelist() if re.search(r"(^|/)(tests|docs|results|peers)/|\.pyc$", name)]


def test_the_wheel_names_its_command_license_and_python(wheel: zipfile.ZipFile) -> None:
    info = f"edgewright-{__version__}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert b"edgewright = edgewright.cli:main" in wheel.read(f"{info}/entry_points.txt")
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()


def test_the_version_is_written_in_one_place() -> None:
    places = [
        path.relative_to(ROOT)
        for source in PACKAGES.values()
        for path in source.rglob("*.py")
        if re.search(r'^__version__\s*=\s*"', path.read_text(), re.MULTILINE)
    ]
    assert places == [Path("edge_contracts/__init__.py")]
    assert f'"{__version__}"' not in (ROOT / "pyproject.toml").read_text()
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
