#!/usr/bin/env bash
# Shows that the wheel WHEEL needs nothing: installs it, without any network, in a fresh container of another
# Debian with another Python, and uses it there: on the embedded engine, which needs rights that the container is
# given, and on the Docker outside. Makes the image from Debian's packages (a minute or two). As root, where
# Docker answers.
set -euo pipefail
cd "$(dirname "$0")/.."

wheel=$(realpath "${1:?usage: $0 WHEEL [SUITE]}")
suite=${2:-trixie}
image=podkit-test/python-$suite:1
test_image=podkit-test/debian:1

if ! docker image inspect "$image" >/dev/null 2>&1; then
    echo "make $image" >&2
    mmdebstrap -q --variant=minbase --include=python3,python3-venv "$suite" - | docker import - "$image" >/dev/null
fi

docker run --rm --network none --cap-add SYS_ADMIN --cap-add NET_ADMIN \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --tmpfs /var/lib/podkit:exec -v "$wheel:/w/$(basename "$wheel"):ro" \
    -v /run/docker.sock:/run/docker.sock -e IMAGE="$test_image" "$image" sh -euc '
    . /etc/os-release; echo "$PRETTY_NAME, $(python3 --version)"
    python3 -m venv /v
    /v/bin/pip -q --disable-pip-version-check install --no-index /w/*.whl
    /v/bin/podkit --version
    /v/bin/python - <<"END"
import os
from podkit import Sandbox, get_docker_session

with Sandbox() as sandbox:
    said = sandbox.shell("echo $((6 * 7))").stdout
    assert said == "42\n", said
    print(sandbox.backend, "runs commands")
for backend, image in [("docker", os.environ["IMAGE"])]:
    with get_docker_session(user_id="clean", session_id="1", backend=backend, image_name=image) as session:
        session.write_file("a.txt", "hi")
        said = session.execute_command("cat a.txt; pwd").stdout
        assert said == "hi/workspace\n", said
    print(backend, "runs commands")
END
'
