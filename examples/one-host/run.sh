#!/usr/bin/env bash
# The store of one host, told in curl: set, get, compare and swap, a key that
# dies, directories, waiting for a change, and a heartbeat that keeps a key
# alive without waking anybody.
#
# Needs curl. ALTHING names the binary; unless it is set, the one built here,
# else the one on the PATH. Everything lives in a temporary directory and ends
# with this script; the port is a free one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/althing-one-host.XXXXXX")
pids=()

fail() {
    printf 'failed: %s\n' "$*" >&2
    tail -n 20 "$work"/*.log >&2 2>/dev/null || true
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

# say TITLE: what comes next. ask ...: a curl line, shown and carried out; what
# differs from run to run (times, and how much of a life is left) is masked.
say() { printf '\n# %s\n' "$*"; }
ask() {
    printf '$ curl -s %s\n' "$(printf '%s ' "$@" | sed "s|$url||g; s/ \$//")"
    curl -s --max-time 20 "$@" |
        sed -E 's/"expiration":"[^"]*"/"expiration":"..."/g; s/"ttl":[0-9]+/"ttl":.../g' |
        sed -E '$a\'
}

command -v curl >/dev/null || fail "this example needs curl"
althing=${ALTHING:-}
for found in "$here"/../../target/{release,debug}/althing "$(command -v althing || true)"; do
    [[ -n $althing || ! -x $found ]] || althing=$found
done
[[ -n $althing ]] || fail "no althing: build it with \`cargo build --release\`"

mkdir -p "$work/conf/conf.d"
"$althing" run --data-dir "$work/data" --listen-client-urls http://127.0.0.1:0 \
    --confdir "$work/conf" >"$work/althing.log" 2>&1 &
pids+=($!)
within 20 "the daemon did not start" test -s "$work/data/run/client-url"
url=$(cat "$work/data/run/client-url")
keys=$url/v2/keys

say "Set a key, read it back, change it: the answer holds what was there before."
ask -XPUT "$keys/message" -d value=Hello
ask "$keys/message"
ask -XPUT "$keys/message" -d value=World

say "Change it only if it still is what you saw. Who comes second is told."
ask -XPUT "$keys/message" -d prevValue=World -d value=Mine
ask -XPUT "$keys/message" -d prevValue=World -d value=Yours
ask -XPUT "$keys/message" -d prevExist=false -d value=New

say "A key may die by itself. Two seconds later it is gone."
ask -XPUT "$keys/short" -d value=life -d ttl=2
gone() { [[ $(curl -s -o /dev/null -w '%{http_code}' "$keys/short") == 404 ]]; }
within 20 "the key did not die" gone
ask "$keys/short"

say "Directories make themselves. A POST puts things in line, in order."
ask -XPUT "$keys/services/web/a" -d value=10.0.0.1:8080
ask -XPUT "$keys/services/web/b" -d value=10.0.0.2:8080
ask "$keys/services?recursive=true&sorted=true"
ask -XPOST "$keys/queue" -d value=first
ask -XDELETE "$keys/services/web"
ask -XDELETE "$keys/services/web?recursive=true"

say "Wait for a change. With an index, what happened meanwhile is not missed."
ask "$keys/services?wait=true&recursive=true&waitIndex=7"
# The watch is there when its headers are: then nothing can slip past it.
curl -s --max-time 60 -D "$work/headers" "$keys/message?wait=true" >"$work/waited" &
waiting=$!
pids+=("$waiting")
within 20 "the watch did not begin" grep -qis '^x-etcd-index' "$work/headers"
curl -s -o /dev/null -XPUT "$keys/message" -d value=News
wait "$waiting" || fail "the wait ended badly"
printf 'told: %s\n' "$(sed -E 's/.*"action":"([a-z]+)","node":\{"key":"([^"]+)","value":"([^"]+)".*/\1 \2 \3/' "$work/waited")"

say "A heartbeat: the key lives while somebody refreshes it, and nobody is woken."
curl -s -o /dev/null -XPUT "$keys/alive/host1" -d value=up -d ttl=2
curl -s --max-time 60 -N "$keys/alive?wait=true&recursive=true&stream=true" >"$work/stream" &
pids+=($!)
beats=0
end=$((SECONDS + 5))
while ((SECONDS < end)); do
    code=$(curl -s -o /dev/null -w '%{http_code}' -XPUT "$keys/alive/host1" -d ttl=2 -d refresh=true -d prevExist=true)
    [[ $code == 200 ]] || fail "beat $beats came too late: $code"
    beats=$((beats + 1))
    sleep 0.3
done
((beats >= 5)) || fail "only $beats beats in five seconds"
printf 'after five seconds of heartbeats a life of two is still there: %s\n' \
    "$(curl -s "$keys/alive/host1" | sed -E 's/.*"value":"([^"]+)".*/\1/')"
within 20 "the silence was not noticed" grep -qs '"action":"expire"' "$work/stream"
printf 'events while it beat: none; after it stopped: %s\n' \
    "$(sed -E 's/.*"action":"([a-z]+)".*/\1/' "$work/stream" | paste -sd' ' -)"
