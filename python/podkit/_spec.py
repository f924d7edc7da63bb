"""Configurations as the library reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import _check
from .errors import InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .core.models import ContainerConfig, StartupVerificationConfig

#: Above what one is not a limit any more.
NO_LIMIT = 2**63 - 1


def limit(value: float | None) -> Any:
    """A length of time, or none."""
    if value is None:
        return "off"
    whole = int(value)
    return {"after": {"secs": whole, "nanos": int((value - whole) * 1e9)}}


def bind(source: str, target: str, read_only: bool = False) -> dict[str, Any]:
    """A directory of this machine's."""
    return {"source": {"bind": source}, "target": target, "read_only": read_only}


def port(container: int, host: int | None = None, address: str = "127.0.0.1") -> dict[str, Any]:
    """A port that this machine offers: the same one, another one, or any for 0."""
    where: Any = "same" if host is None else "any" if host == 0 else {"number": host}
    return {"container": container, "host": where, "address": address, "protocol": "tcp"}


def mount_of(mount: Any, where: str) -> dict[str, Any]:
    """A mount as Docker's API writes it."""
    if not isinstance(mount, Mapping):
        raise _check.bad(where, f"must be a dictionary, not {_check.kind_of(mount)}")
    target = _check.text(mount.get("Target", ""), f"{where}['Target']")
    read_only = bool(mount.get("ReadOnly", False))
    kind = mount.get("Type", "bind")
    if kind == "tmpfs":
        options = mount.get("TmpfsOptions") or {}
        source: Any = {"tmpfs": {"size_bytes": options.get("SizeBytes")}}
    else:
        named = _check.text(mount.get("Source", ""), f"{where}['Source']")
        if kind not in ("bind", "volume"):
            raise _check.bad(f"{where}['Type']", f"is `bind`, `volume` or `tmpfs`, not {kind!r}")
        source = {kind: named}
    return {"source": source, "target": target, "read_only": read_only}


def startup(verification: StartupVerificationConfig | None) -> tuple[int, float, int] | None:
    """How often a container is looked at after its start, how far apart, and how many lines of its log a
    failure has.

    Raises:
        InvalidInputError: so many checks need more time than there is.
    """
    if verification is None:
        return None
    # Fields may have been changed in place since they were checked.
    config = type(verification).model_validate(verification.model_dump())
    checks, interval = config.required_consecutive_checks, config.check_interval_seconds
    possible = int(config.max_wait_seconds / interval + 1e-9)
    if possible < checks:
        text = f"has time for {possible} checks, {interval:g} s apart, and {checks} are required"
        raise _check.bad("startup_verification.max_wait_seconds", text)
    lines = config.log_tail_lines if config.capture_logs_on_failure else 0
    return checks, interval, lines


def of_config(
    config: ContainerConfig, mounts: Iterable[Any], *, workspace: tuple[str, str] | None = None
) -> dict[str, Any]:
    """The library's form of a configuration of podkit 0.7."""
    # Fields may have been changed in place since they were checked.
    config = type(config).model_validate(config.model_dump())
    spec: dict[str, Any] = {
        "cpus": config.cpu_limit,
        "memory": config.memory_limit,
        "env": config.environment,
        "cwd": config.working_dir,
        "user": config.user,
        "mounts": [mount_of(mount, f"mounts[{i}]") for i, mount in enumerate(mounts)],
    }
    if config.image is not None:
        spec["image"] = config.image
    elif config.inherit_parent_image:
        spec["inherit_image"] = True
    if config.networks:
        spec["network"] = {"named": config.networks}
    elif config.inherit_parent_networks:
        spec["inherit_networks"] = True
    if config.ports:
        spec["ports"] = [port(number) for number in config.ports]
    if config.auto_remove:
        spec["auto_remove"] = True
    if workspace is not None:
        spec["workspace"] = {"base": workspace[0], "host_base": workspace[1]}
    runs_itself = config.use_image_defaults or bool(config.command) or bool(config.entrypoint)
    if config.use_image_defaults:
        spec["image_defaults"] = True
    elif runs_itself:
        if config.entrypoint is not None:
            spec["entrypoint"] = config.entrypoint
        if config.command:
            spec["command"] = config.command
    if runs_itself or config.entrypoint is not None:
        spec["auto_stop"] = "off"
    else:
        lifetime = limit(config.container_lifetime_seconds)
        spec["auto_stop"] = lifetime
        # A command that would have been cut off with its container has the same time here.
        spec["exec_timeout"] = lifetime
    return spec


def to_config(spec: Mapping[str, Any]) -> ContainerConfig:
    """The configuration of podkit 0.7 that is nearest to what a container was made with."""
    from .core.models import ContainerConfig

    values: dict[str, Any] = {}
    plain = {
        "image": "image",
        "inherit_image": "inherit_parent_image",
        "cpus": "cpu_limit",
        "memory": "memory_limit",
        "env": "environment",
        "cwd": "working_dir",
        "user": "user",
        "image_defaults": "use_image_defaults",
        "entrypoint": "entrypoint",
        "command": "command",
        "inherit_networks": "inherit_parent_networks",
        "auto_remove": "auto_remove",
    }
    for name, field in plain.items():
        if spec.get(name) not in (None, {}, False):
            values[field] = spec[name]
    if spec.get("ports"):
        values["ports"] = [port["container"] for port in spec["ports"]]
    network = spec.get("network")
    if isinstance(network, dict):
        values["networks"] = network.get("named", [])
    mounts = []
    for mount in spec.get("mounts") or []:
        source = mount["source"]
        kind = next(iter(source))
        named = source[kind] if kind != "tmpfs" else "tmpfs"
        mounts.append(
            {
                "type": kind,
                "source": named,
                "target": mount["target"],
                "read_only": mount["read_only"],
            }
        )
    if mounts:
        values["volumes"] = mounts
    clock = spec.get("auto_stop")
    if isinstance(clock, dict):
        values["container_lifetime_seconds"] = max(1, round(clock["after"]["secs"]))
    elif clock == "off" and not {"entrypoint", "command", "use_image_defaults"} & set(values):
        values["entrypoint"] = []
    return ContainerConfig(**values)


def dumps(spec: Mapping[str, Any]) -> str:
    """The text that the library reads."""
    import json

    try:
        return json.dumps(spec, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the configuration cannot be used: {error}") from None
