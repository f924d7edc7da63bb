"""The keywords of sandboxes and commands, checked and in the library's form."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from . import _check, _spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import Request


def _path(value: Any, name: str = "path") -> str:
    return _check.text(value, name)


def _request(argv: list[bytes], options: Mapping[str, Any]) -> Request:
    from . import _native

    checked: dict[str, Any] = {}
    stdin = options.get("stdin")
    if stdin is True:
        checked["stdin_stream"] = True
    elif stdin is not None:
        checked["stdin"] = _check.content(stdin, "stdin")
    terminal = options.get("terminal")
    if terminal is not None:
        try:
            rows, columns = terminal
        except (TypeError, ValueError):
            raise _check.bad("terminal", "must be a pair of rows and columns") from None
        checked["terminal"] = (
            _check.integer(rows, "terminal[0]", 1, 65535),
            _check.integer(columns, "terminal[1]", 1, 65535),
        )
    return _native.Request(
        argv,
        env=_check.variables(options.get("env")),
        cwd=_check.maybe_text(options.get("cwd"), "cwd"),
        user=_check.maybe_text(options.get("user"), "user"),
        timeout=_check.maybe_seconds(options.get("timeout"), "timeout"),
        output_limit=_check.maybe_integer(options.get("output_limit"), "output_limit", 0, _spec.NO_LIMIT),
        merge_output=bool(options.get("merge_output", False)),
        detached=bool(options.get("detached", False)),
        **checked,
    )


def _mount(value: Any, where: str) -> dict[str, Any]:
    from .core.models import Mount

    if isinstance(value, Mount):
        source: Any = {value.type: str(value.source)}
        if value.type == "tmpfs":
            source = {"tmpfs": {"size_bytes": None}}
        return {"source": source, "target": str(value.target), "read_only": value.read_only}
    return _spec.mount_of(value, where)


def make_spec(options: Mapping[str, Any]) -> dict[str, Any]:
    """The library's form of the keywords of a sandbox."""
    spec: dict[str, Any] = {}

    def put(name: str, check: Any) -> None:
        if options.get(name) is not None:
            spec[name] = check(options[name], name)

    def number(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _check.bad(name, f"must be a number, not {_check.kind_of(value)}")
        return float(value)

    def amount(value: Any, name: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return _check.text(value, name)

    def words(value: Any, name: str) -> list[str]:
        return [word.decode() for word in _check.argv(value, name)] if value else []

    def clock(value: Any, name: str) -> Any:
        return _spec.limit(None if value is False else _check.seconds(value, name))

    def yes(value: Any, name: str) -> bool:
        if not isinstance(value, bool):
            raise _check.bad(name, f"must be True or False, not {_check.kind_of(value)}")
        return value

    put("image", _check.text)
    put("cpus", number)
    put("memory", amount)
    put("swap", amount)
    put("shm", amount)
    put("pids_max", lambda value, name: _check.integer(value, name, 1, 2**32 - 1))
    put("env", lambda value, name: dict(_check.variables(value, name)))
    put("cwd", _check.text)
    put("user", _check.text)
    put("entrypoint", words)
    put("command", words)
    put("hostname", _check.text)
    put("runtime", _check.text)
    put("read_only_root", yes)
    put("auto_stop", clock)
    put("idle_timeout", clock)
    put("max_lifetime", clock)
    put("exec_timeout", clock)
    if options.get("network") is not None:
        network = options["network"]
        if isinstance(network, str):
            known = network in ("default", "outbound", "none", "host")
            spec["network"] = network if known else {"named": [_check.text(network, "network")]}
        else:
            spec["network"] = {"named": [_check.text(name, "network") for name in _items(network, "network")]}
    if options.get("mounts"):
        mounts = _items(options["mounts"], "mounts")
        spec["mounts"] = [_mount(mount, f"mounts[{place}]") for place, mount in enumerate(mounts)]
    if options.get("ports"):
        ports = options["ports"]
        if isinstance(ports, Mapping):
            spec["ports"] = [
                _spec.port(
                    _check.port(inside, "ports"),
                    None if outside is None else _check.integer(outside, f"ports[{inside}]", 0, 65535),
                )
                for inside, outside in ports.items()
            ]
        else:
            spec["ports"] = [_spec.port(_check.port(port, "ports")) for port in _items(ports, "ports")]
    if options.get("labels"):
        labels = options["labels"]
        if not isinstance(labels, Mapping):
            raise _check.bad("labels", f"must be a mapping, not {_check.kind_of(labels)}")
        spec["labels"] = {
            _check.text(key, "a name in labels"): _check.text(value, f"labels[{key!r}]", empty=True)
            for key, value in labels.items()
        }
    if options.get("workspace") is not None:
        base = os.path.abspath(_check.text(options["workspace"], "workspace"))
        host = options.get("workspace_host")
        spec["workspace"] = {
            "base": base,
            "host_base": None if host is None else _check.text(host, "workspace_host"),
        }
    return spec


def _items(value: Any, name: str) -> list[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise _check.bad(name, f"must be a list, not {_check.kind_of(value)}")
    return list(value)
