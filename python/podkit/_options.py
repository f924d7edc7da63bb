"""The keywords of sandboxes and commands, checked and in the library's form."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from . import _check, _spec
from .errors import InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import Request


_ISOLATIONS = ("own_range", "shared_range", "caller_uid")


def _path(value: Any, name: str = "path") -> str:
    return _check.text(value, name)


def _terminal(size: Any) -> tuple[int, int] | None:
    """Rows and columns."""
    if size is None:
        return None
    try:
        rows, columns = size
    except (TypeError, ValueError):
        raise _check.bad("terminal", "must be a pair of rows and columns") from None
    return (
        _check.integer(rows, "terminal[0]", 1, 65535),
        _check.integer(columns, "terminal[1]", 1, 65535),
    )


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
        checked["terminal"] = _terminal(terminal)
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


def _read(what: str, value: str, name: str) -> Any:
    """A part of a configuration as the command line writes it."""
    import json

    from . import _native

    try:
        return json.loads(_native.parse(what, _check.text(value, name)))
    except InvalidInputError as error:
        if error.message.startswith(f"`{name}`"):
            raise
        raise _check.bad(name, f"cannot be used: {error.message}", error.hint) from None


def _mount(value: Any, where: str) -> dict[str, Any]:
    from .core.models import Mount

    if isinstance(value, Mount):
        source: Any = {value.type: str(value.source)}
        if value.type == "tmpfs":
            source = {"tmpfs": {"size_bytes": None}}
        return {"source": source, "target": str(value.target), "read_only": value.read_only}
    if isinstance(value, str):
        read: dict[str, Any] = _read("mount", value, where)
        if "bind" in read["source"]:
            read["source"]["bind"] = os.path.abspath(read["source"]["bind"])
        return read
    return _spec.mount_of(value, where)


def _port(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        read: dict[str, Any] = _read("port", value, where)
        return read
    return _spec.port(_check.port(value, where))


def _gpus(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return _read("gpus", value, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return {"count": _check.integer(value, name, 1, 65535)}
    ids = _texts(value, name)
    if not ids:
        raise _check.bad(name, "is empty")
    return {"ids": ids}


def _ulimits(value: Any, name: str) -> dict[str, Any]:
    found = {}
    for key, limit in _items_of(value, name):
        where = f"{name}[{key!r}]"
        pair = limit if isinstance(limit, (tuple, list)) else (limit, limit)
        if len(pair) != 2:
            raise _check.bad(where, "must be a number, or a pair of the soft and the hard one")
        soft, hard = (_check.integer(one, where, 0, 2**64 - 1) for one in pair)
        found[key] = {"soft": soft, "hard": hard}
    return found


def _addresses(value: Any, name: str) -> list[str]:
    import ipaddress

    found = _texts(value, name)
    for place, address in enumerate(found):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise _check.bad(f"{name}[{place}]", f"is no address: {address!r}") from None
    return found


def _texts(value: Any, name: str) -> list[str]:
    return [_check.text(one, f"{name}[{place}]") for place, one in enumerate(_items(value, name))]


def _items_of(value: Any, name: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise _check.bad(name, f"must be a mapping, not {_check.kind_of(value)}")
    return [(_check.text(key, f"a name in {name}"), one) for key, one in value.items()]


def _security(options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("add_capabilities", "drop_capabilities"):
        if options.get(name):
            found[name] = _texts(options[name], name)
    for name in ("seccomp_unconfined", "allow_new_privileges"):
        if options.get(name) is not None and _yes(options[name], name):
            found[name] = True
    isolation = options.get("isolation")
    if isolation is not None:
        if isolation not in _ISOLATIONS:
            raise _check.bad("isolation", f"is one of {', '.join(_ISOLATIONS)}, not {isolation!r}")
        found["isolation"] = isolation
    return found


def _yes(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _check.bad(name, f"must be True or False, not {_check.kind_of(value)}")
    return value


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
    put("read_only_root", _yes)
    put("image_defaults", _yes)
    put("auto_remove", _yes)
    put("inherit_image", _yes)
    put("inherit_networks", _yes)
    put("host_paths", lambda value, name: [os.path.abspath(path) for path in _texts(value, name)])
    put("aliases", _texts)
    put("dns", _addresses)
    put("hosts", lambda value, name: {key: _check.text(one, name) for key, one in _items_of(value, name)})
    put("ulimits", _ulimits)
    put("devices", lambda value, name: [_read("device", one, name) for one in _items(value, name)])
    put("gpus", _gpus)
    put("platform", _check.text)
    put("pull", lambda value, name: _read("pull", value, name))
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
            given = _items(ports, "ports")
            spec["ports"] = [_port(port, f"ports[{place}]") for place, port in enumerate(given)]
    if options.get("labels"):
        spec["labels"] = {
            key: _check.text(value, f"labels[{key!r}]", empty=True)
            for key, value in _items_of(options["labels"], "labels")
        }
    security = _security(options)
    if security:
        spec["security"] = security
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
