#!/usr/bin/env bash
# Builds both images without a container engine and runs them. Needs root, buildah and debootstrap.
#
# The base image is a substitute made by debootstrap (Debian 12 with its own Python 3.11), not the published Python image.
# The check covers the Dockerfile, the pinned installation, the users, the health checks and the drain on SIGTERM.
#
#   DFKD_BUILD_MOUNTS="/srv/wheels:/srv/wheels:ro ..."   extra directories that pip needs during the build
#   DFKD_BUILD_CACHE=DIR                                  where the substitute base is kept between runs
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ "$(id -u)" = 0 ] || missing+=("root")
if [ ${#missing[@]} -gt 0 ]; then
    echo "containers: not checked, missing: ${missing[*]} (apt-get install buildah debootstrap; run as root)" >&2
    exit 1
fi

python=${PYTHON:-python3}
cache=${DFKD_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dfkd/containers}
work=$(mktemp -d)
base=localhost/dfkd-python-base
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
build=(buildah --root "$work/storage" --runroot "$work/run")
trap 'umount -l "$work"/storage/vfs* 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$cache"

took() { echo "containers: $1 in $((SECONDS - started)) s"; started=$SECONDS; }
started=$SECONDS

if [ ! -x "$cache/root/usr/bin/python3" ]; then
    rm -rf "$cache/root" "$cache/root.partial"
    debootstrap --variant=minbase --include=python3-minimal,python3-venv,ca-certificates bookworm "$cache/root.partial" >"$cache/debootstrap.log"
    ln -s python3 "$cache/root.partial/usr/bin/python"
    mv "$cache/root.partial" "$cache/root"
fi
printf 'FROM scratch\nCOPY root/ /\n' >"$work/Dockerfile.base"
"${build[@]}" bud --quiet --file "$work/Dockerfile.base" --tag "$base" "$cache" >/dev/null
took "substitute base image"

"$python" containers/pip_conf.py >"$work/pip.conf"
chmod 644 "$work/pip.conf"
volumes=(--volume "$work/pip.conf:/etc/pip.conf:ro" --volume /etc/ssl/certs:/etc/ssl/certs:ro)
for mount in ${DFKD_BUILD_MOUNTS:-}; do volumes+=(--volume "$mount"); done

build_target() {
    "${build[@]}" bud --quiet --pull-never --format docker --build-arg "PYTHON_IMAGE=$base" "${volumes[@]}" \
        --target "$1" --tag "dfkd-$1" . >"$work/$1.log" 2>&1 || { tail -n 40 "$work/$1.log" >&2; return 1; }
    took "$1 image built"
}

# run_in IMAGE SCRIPT runs SCRIPT in a container as the image's own user, on the host's loopback.
run_in() {
    local container
    container=$("${build[@]}" from --pull-never "$1")
    "${build[@]}" run "$container" -- sh -euc "$2"
    "${build[@]}" rm "$container" >/dev/null
}

# start_and_stop HEALTH COMMAND starts COMMAND, waits until HEALTH succeeds, stops it with SIGTERM and expects a clean end.
healthy='
start_and_stop() {
    health=$1; shift
    "$@" & process=$!
    for _ in $(seq 60); do
        if python "$health" 2>/dev/null; then healthy=yes; break; fi
        kill -0 $process
        sleep 1
    done
    [ "${healthy:-no}" = yes ]
    kill -TERM $process
    wait $process || [ $? = 143 ]  # uvicorn ends with the signal that stopped it
}
[ "$(id -u)" = 10001 ]
'

build_target service
run_in dfkd-service "$healthy
python -c 'import service.app, importlib.util, sys; sys.exit(importlib.util.find_spec(\"torch\") is not None)'
export DFKD_HEALTH_URL=http://127.0.0.1:18642/healthz
start_and_stop /opt/health/service_health.py python -m service --host 127.0.0.1 --port 18642"
took "service image answers /healthz, holds no torch, stops on SIGTERM"

build_target worker
run_in dfkd-worker "$healthy
python -c 'import torch, worker.app, worker.runner.main; print(\"torch\", torch.__version__)'
if python -m worker; then exit 1; fi  # in a chroot nobody may make the namespaces of a sandbox; without one it refuses
export DFKD_SANDBOX=off
start_and_stop /opt/health/worker_health.py python -m worker"
took "worker image imports torch, refuses to work without a sandbox, reports its heartbeat, stops on SIGTERM"
