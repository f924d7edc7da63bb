"""Paths, mounts, networks and ports."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from podkit import PortPool
from podkit.core.models import ContainerConfig, Mount
from podkit.utils import (
    container_to_host_path,
    get_parent_container_networks,
    get_workspace_path,
    host_to_container_path,
    is_running_in_docker_container,
)
from podkit.utils.mounts import (
    NAMED_VOLUME_MOUNT_PATH,
    config_volumes_to_mounts,
    get_standard_workspace_mounts,
    get_volume_init_command,
    get_volume_workspace_subpath,
)
from podkit.utils.network import DOCKER_AVAILABLE
from podkit.utils.paths import normalize_container_path, write_to_mounted_path


def test_container_paths_are_relative_to_the_workspace() -> None:
    assert normalize_container_path("a/b") == Path("/workspace/a/b")
    assert normalize_container_path(Path("/etc/x")) == Path("/etc/x")
    assert container_to_host_path("/workspace/a", "/base") == Path("/base/a")
    assert container_to_host_path("/w/a", "/base", "/w") == Path("/base/a")
    assert host_to_container_path("/base/a", "/base") == Path("/workspace/a")
    for bad in ("/etc/x", "/workspace/../x", "/workspacex/a"):
        with pytest.raises(ValueError):
            container_to_host_path(bad, "/base")
    with pytest.raises(ValueError):
        host_to_container_path("/base/../x", "/base")


def test_ids_lead_nowhere_else() -> None:
    assert get_workspace_path("/b", "u", "s-1") == Path("/b/workspaces/u/s-1")
    assert get_workspace_path("/b", "../../esc", "a b") == Path("/b/workspaces/..%2F..%2Fesc/a%20b")
    for bad in ("..", ".", "", "a\0"):
        with pytest.raises(ValueError, match="user_id"):
            get_workspace_path("/b", bad, "s")


def test_mounted_files_are_written_and_links_are_not_followed(tmp_path: Path) -> None:
    base = tmp_path / "base"

    def place(path: Path) -> Path:
        return container_to_host_path(path, base)

    assert write_to_mounted_path("a/b/c.txt", "ü\n", place) == Path("/workspace/a/b/c.txt")
    assert (base / "a" / "b" / "c.txt").read_bytes() == "ü\n".encode()
    write_to_mounted_path("a/b/c.txt", "x", place)
    assert (base / "a" / "b" / "c.txt").read_text() == "x"
    outside = tmp_path / "outside"
    outside.mkdir()
    (base / "link").symlink_to(outside)
    (base / "file").symlink_to(outside / "file")
    os.mkfifo(base / "fifo")
    for bad in ("link/x", "file", "fifo", "../x", ".", "/etc/x"):
        with pytest.raises(ValueError):
            write_to_mounted_path(bad, "x", place)
    assert list(outside.iterdir()) == []


def test_mounts_are_dockers(tmp_path: Path) -> None:
    volumes = [
        Mount(source="/a", target="/b", read_only=True),
        Mount(type="volume", source="v", target="/c"),
        Mount(type="tmpfs", target="/d"),
    ]
    assert config_volumes_to_mounts(volumes) == [
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        {"Type": "volume", "Source": "v", "Target": "/c"},
        {"Type": "tmpfs", "Target": "/d"},
    ]
    assert get_volume_workspace_subpath("u", "s") == "workspaces/u/s"
    assert get_volume_init_command("u", "s")[:2] == ["sh", "-c"]

    def real(path: Path, user: str, session: str, real_host: bool = False) -> Path:
        assert (path, user, session, real_host) == (Path("/workspace"), "u", "s", True)
        return Path("/real")

    config = ContainerConfig(volumes=volumes[:1])
    mounts = get_standard_workspace_mounts(tmp_path, "u", "s", config, real)
    assert mounts[0] == {"Type": "bind", "Source": "/real", "Target": "/workspace"}
    assert len(mounts) == 2 and (tmp_path / "workspaces" / "u" / "s").is_dir()
    mounts = get_standard_workspace_mounts(tmp_path, "u", "s", config, real, volume_name="v")
    assert mounts[0] == {"Type": "volume", "Source": "v", "Target": NAMED_VOLUME_MOUNT_PATH}


def test_program_outside_of_docker_has_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DOCKER_AVAILABLE
    assert not is_running_in_docker_container()
    assert get_parent_container_networks() == []
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert get_parent_container_networks() == []


def test_ports_are_given_out_once_and_only_when_free() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        pool = PortPool(port, port)
        with pytest.raises(RuntimeError, match="Not enough ports available: requested 1, available 0"):
            pool.allocate(1)
    assert pool.allocate(1) == [port]
    assert (pool.available_count, pool.allocated_count) == (0, 1)
    with pytest.raises(RuntimeError, match="requested 5, available 0"):
        pool.allocate()
    pool.release([port, 1])
    assert pool.allocate(1) == [port]
    assert PortPool().ports_per_container == 5
    for bad in ({"start": 10, "end": 9}, {"start": 0}, {"ports_per_container": 0}, {"start": "x"}):
        with pytest.raises(ValueError):
            PortPool(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count"):
        pool.allocate(-1)
