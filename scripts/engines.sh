#!/usr/bin/env bash
# The engines and images that the tests of Docker and Podman need, from Debian's packages alone.
#   start   starts dockerd, Podman's service and two registries where they do not answer, and makes
#           the test images where they are missing
#   running names what an earlier `start` has started and still runs
#   stop    ends what `start` has started, but for the names that follow
#   status  says what answers
set -euo pipefail
cd "$(dirname "$0")/.."

run=/run/podkit-test
logs=/var/log/podkit-test
cache=/var/cache/podkit-test
podman_socket=/run/podman/podman.sock
images=(debian static entrypoint user layers)

say() { printf 'engines: %s\n' "$*" >&2; }

wait_for() { # WHAT COMMAND...
    local what=$1
    shift
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    say "error: $what does not answer; see $logs"
    exit 1
}

# Runs a program on its own, and notes it for `stop`.
begin() { # NAME COMMAND...
    local name=$1
    shift
    say "start $name"
    # Podman leaves files where it was started.
    (cd "$run" && exec setsid "$@" >"$logs/$name" 2>&1 </dev/null) &
    echo $! >"$run/$name.pid"
}

docker_answers() { docker -H unix:///run/docker.sock version; }
podman_answers() { curl -sf --unix-socket "$podman_socket" http://podman/_ping; }
registry_answers() { curl -s "http://127.0.0.1:$1/v2/"; }

# Debian's Podman wants limits that a machine may not allow, and crun refuses some of its cgroups.
podman_settings() {
    cat >"$run/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
    cat >"$run/registries.conf" <<'CONF'
unqualified-search-registries = []
[[registry]]
location = "127.0.0.1:5000"
insecure = true
[[registry]]
location = "127.0.0.1:5001"
insecure = true
CONF
    export CONTAINERS_CONF=$run/containers.conf CONTAINERS_REGISTRIES_CONF=$run/registries.conf
}

# The tree that the images are made of.
make_tree() {
    [ -s "$cache/debian.tar" ] && return
    say "make a Debian for the images"
    mmdebstrap --quiet --format=tar --variant=minbase --include=python3-minimal,procps,util-linux bookworm \
        "$cache/debian.tar.new"
    mv "$cache/debian.tar.new" "$cache/debian.tar"
}

has_all() { # ENGINE
    local name
    for name in "${images[@]}"; do
        "$1" image inspect "podkit-test/$name:1" >/dev/null 2>&1 || return 1
    done
}

make_images() {
    has_all docker && return
    make_tree
    say "make the images"
    docker import --change 'CMD ["sh"]' "$cache/debian.tar" podkit-test/debian:1 >/dev/null
    # Nothing in it but one static program.
    tar -C /usr/bin -c --transform 's,^,/,' busybox -P | docker import - podkit-test/static:1 >/dev/null
    local context
    context=$(mktemp -d)
    # The builder of Debian's Docker says on each use that it is old.
    exec 3>&2 2>"$logs/build"
    docker build -q -t podkit-test/entrypoint:1 - >/dev/null <<'FILE'
FROM podkit-test/debian:1
ENV GREETING=hello
WORKDIR /opt/app
VOLUME /data
ENTRYPOINT ["/bin/echo", "from-entrypoint"]
CMD ["and-command"]
HEALTHCHECK CMD true
FILE
    docker build -q -t podkit-test/user:1 - >/dev/null <<'FILE'
FROM podkit-test/debian:1
RUN echo 'worker:x:1000:1000::/home/worker:/bin/sh' >>/etc/passwd && mkdir -m 777 /home/worker
USER worker
CMD ["sleep", "1000"]
FILE
    {
        echo "FROM podkit-test/static:1"
        for number in $(seq 40); do
            echo "layer $number" >"$context/$number"
            echo "COPY $number /layers/$number"
        done
    } >"$context/Dockerfile"
    docker build -q -t podkit-test/layers:1 "$context" >/dev/null
    exec 2>&3 3>&-
    rm -rf "$context"
}

# The same images for Podman.
copy_images() {
    has_all podman && return
    say "give the images to Podman"
    local names=("${images[@]/#/podkit-test/}")
    docker save "${names[@]/%/:1}" | podman load -q >/dev/null
    local name
    for name in "${names[@]}"; do
        podman image exists "$name:1" || podman tag "docker.io/$name:1" "$name:1"
    done
}

registry() { # PORT [PASSWORD FILE]
    registry_answers "$1" >/dev/null && return
    {
        printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}}\n' \
            "$cache/registry"
        printf 'http: {addr: "127.0.0.1:%s"}\n' "$1"
        [ $# -lt 2 ] || printf 'auth: {htpasswd: {realm: podkit, path: %s}}\n' "$2"
    } >"$run/registry-$1.yml"
    begin "registry-$1" docker-registry serve "$run/registry-$1.yml"
    wait_for "the registry at port $1" registry_answers "$1"
}

start_registries() {
    htpasswd -Bbn podkit secret >"$run/htpasswd" 2>/dev/null
    registry 5000
    registry 5001 "$run/htpasswd"
    curl -sf http://127.0.0.1:5000/v2/podkit-test/layers/tags/list >/dev/null && return
    say "fill the registry"
    local name
    for name in layers static; do
        docker tag "podkit-test/$name:1" "127.0.0.1:5000/podkit-test/$name:1"
        docker push -q "127.0.0.1:5000/podkit-test/$name:1" >/dev/null
        # So that a pull has something to do.
        docker rmi "127.0.0.1:5000/podkit-test/$name:1" >/dev/null
    done
}

start() {
    if [ "$(id -u)" != 0 ]; then
        say "error: engines are started by root"
        exit 1
    fi
    mkdir -p "$run" "$logs" "$cache" /run/podman
    if ! docker_answers >/dev/null 2>&1; then
        begin dockerd dockerd -H unix:///run/docker.sock
        wait_for dockerd docker_answers
    fi
    podman_settings
    if ! podman_answers >/dev/null 2>&1; then
        begin podman podman system service -t 0 "unix://$podman_socket"
        wait_for "Podman's service" podman_answers
    fi
    make_images
    copy_images
    start_registries
}

running() {
    local file
    for file in "$run"/*.pid; do
        [ -e "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null && basename "$file" .pid
    done
    return 0
}

stop() { # NAME TO KEEP...
    local file pid
    for file in "$run"/*.pid; do
        [ -e "$file" ] || continue
        [[ " $* " != *" $(basename "$file" .pid) "* ]] || continue
        pid=$(cat "$file")
        say "stop $(basename "$file" .pid)"
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
        rm -f "$file"
    done
}

status() {
    docker_answers >/dev/null 2>&1 && echo "docker answers" || echo "docker does not answer"
    podman_answers >/dev/null 2>&1 && echo "podman answers" || echo "podman does not answer"
    for port in 5000 5001; do
        registry_answers "$port" >/dev/null && echo "registry $port answers" ||
            echo "registry $port does not answer"
    done
}

case "${1:-}" in
start) start ;;
running) running ;;
stop) stop "${@:2}" ;;
status) status ;;
*)
    echo "usage: scripts/engines.sh start|running|stop [NAME...]|status" >&2
    exit 2
    ;;
esac
