#!/usr/bin/env bash
# HAProxy follows its backends: two web servers register with a heartbeat, one
# falls silent, one registers nonsense. Nothing is configured by hand.
#
# Needs haproxy, curl and python3. ALTHING names the binary; unless it is set,
# the one built here, else the one on the PATH. Everything lives in a temporary
# directory and ends with this script; the ports are free ones.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d "${TMPDIR:-/tmp}/althing-haproxy.XXXXXX")
pids=()

say() { printf '%s\n' "$*"; }

fail() {
    printf 'failed: %s\n' "$*" >&2
    tail -n 20 "$work"/*.log "$work/haproxy.cfg" >&2 2>/dev/null || true
    exit 1
}

finish() {
    local status=$?
    trap - EXIT
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# within SECONDS WHAT COMMAND...: tries the command until it succeeds.
within() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "$what"
        sleep 0.05
    done
}

for program in haproxy curl python3; do
    command -v "$program" >/dev/null || fail "this example needs $program"
done
althing=${ALTHING:-}
for found in "$here"/../../target/{release,debug}/althing "$(command -v althing || true)"; do
    [[ -n $althing || ! -x $found ]] || althing=$found
done
[[ -n $althing ]] || fail "no althing: build it with \`cargo build --release\`"

# Three ports that were free a moment ago, all bound at once so that they differ.
read -r WEB_PORT PORT_A PORT_B < <(python3 -c '
import socket
bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in bound))')
export WEB_PORT

# 1. The daemon: one member, and this host's template.
mkdir "$work/conf"
cp -R "$here/conf.d" "$here/templates" "$work/conf"
sed -i "s|{WORK}|$work|g" "$work/conf/conf.d/haproxy.toml"
"$althing" run --data-dir "$work/data" --confdir "$work/conf" \
    --listen-client-urls http://127.0.0.1:0 >"$work/althing.log" 2>&1 &
pids+=($!)
within 20 "the daemon did not start" test -s "$work/data/run/client-url"
url=$(cat "$work/data/run/client-url")
within 20 "the first haproxy.cfg was not rendered" test -s "$work/haproxy.cfg"
say "rendered: haproxy.cfg, no server yet"

# 2. HAProxy, as its own package starts it, but without a service manager.
haproxy -W -p "$work/haproxy.pid" -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
pids+=($!)
within 20 "HAProxy did not start" test -s "$work/haproxy.pid"

servers() { sed -n 's/^    server \([^ ]*\) .*/\1/p' "$work/haproxy.cfg" | paste -sd' ' -; }
servers_are() { [[ $(servers) == "$1" ]]; }
answer() { curl -s --max-time 2 "http://127.0.0.1:$WEB_PORT/" || true; }
answers_with() { [[ $(answer) == "$1" ]]; }

backend() { # NAME PORT
    mkdir "$work/$1"
    printf 'answer of %s\n' "$1" >"$work/$1/index.html"
    python3 -m http.server "$2" --bind 127.0.0.1 --directory "$work/$1" \
        >"$work/$1.log" 2>&1 &
    pids+=($!)
}

# A registration that lives for two seconds, kept alive twice a second. A refresh
# wakes no watcher, so nothing is rendered for it.
heartbeat() { # NAME PORT
    local key=$url/v2/keys/services/web/$1
    curl -sf -o /dev/null -XPUT "$key" -d ttl=2 \
        --data-urlencode "value={\"addr\": \"127.0.0.1\", \"port\": $2}"
    while sleep 0.5; do
        curl -sf -o /dev/null -XPUT "$key" -d ttl=2 -d refresh=true -d prevExist=true || true
    done
}

# 3. A backend appears, and then another.
backend a "$PORT_A"
heartbeat a "$PORT_A" &
heartbeat_a=$!
pids+=("$heartbeat_a")
within 20 "a never came into the file" servers_are "a"
within 20 "HAProxy never sent us to a" answers_with "answer of a"
say "a registered: servers are $(servers); $(answer)"

backend b "$PORT_B"
heartbeat b "$PORT_B" &
pids+=($!)
within 20 "b never came into the file" servers_are "a b"
within 20 "HAProxy never sent us to b" answers_with "answer of b"
within 20 "HAProxy forgot a" answers_with "answer of a"
say "b registered: servers are $(servers); both answer"

# 4. a falls silent. Its web server still runs: what counts is the heartbeat.
kill "$heartbeat_a"
within 20 "a never left the file" servers_are "b"
# The old worker answers until the new one has taken over.
only_b() { for _ in 1 2 3 4 5; do answers_with "answer of b" || return 1; done; }
within 20 "HAProxy still sends us to a" only_b
say "a fell silent: servers are $(servers); only b answers"

# 5. Nonsense is registered. HAProxy's own check refuses it; nothing changes.
refused() { ! "$althing" status --endpoint "$url" >/dev/null 2>&1; }
"$althing" set /services/web/c '{"addr": "127.0.0.1", "port": "nonsense"}' --endpoint "$url"
within 20 "nonsense was not refused" refused
servers_are "b" || fail "nonsense reached the file"
answers_with "answer of b" || fail "HAProxy stopped to answer"
say "c registered nonsense: refused; servers are $(servers); only b answers"

"$althing" rm /services/web/c --endpoint "$url"
within 20 "the daemon still complains" "$althing" status --endpoint "$url" >"$work/status.log" 2>&1
say "c is gone: every file is up to date"
