"""Finding and reading a device profile by name or by path. What a profile says is in `edge_contracts.profile`.

The named profiles lie beside the project in a checkout (`firmware_configs/profiles`) and inside the package
`edgewright` in an installed wheel; both are found by path relative to this package, so no other room is imported.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import ConfigError
from edge_contracts.profile import DeviceProfile, parse_profile
from edge_contracts.toml import decode_toml

_SITE = Path(__file__).resolve().parent.parent.parent
_FOLDERS = (_SITE / "edgewright" / "firmware_configs" / "profiles", _SITE / "firmware_configs" / "profiles")


def profile_names() -> tuple[str, ...]:
    """Return the names of the profiles that ship with Edgewright, sorted."""
    return tuple(sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")}))


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Return the profile of that name, or the one in the TOML file at that path (it ends in `.toml`).

    Raises ConfigError when there is none, ContractError naming the field when it is no TOML or does not hold.
    """
    path = _find(str(name_or_path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    return parse_profile(decode_toml(data, what=str(path)))


BOARD_HINT = "choose another profile in [device]; `edgewright example` lists them"


def board_problem(profile: DeviceProfile, architecture: str) -> str | None:
    """Return why a machine of this architecture is not of the profile's class, or None."""
    if profile.board.architecture == architecture:
        return None
    return f"profile {profile.name} is for {profile.board.architecture}, this is {architecture}"


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    for folder in _FOLDERS:
        path = folder / f"{name}.toml"
        if "/" not in name and path.is_file():
            return path
    known = ", ".join(profile_names()) or "none"
    raise ConfigError(
        f"no profile named {name[:80]!r}", subject="profile", hint=f"known: {known}; or a path to a .toml"
    )
