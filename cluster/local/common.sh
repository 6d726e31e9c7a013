# shellcheck shell=bash
# What up.sh, down.sh and status.sh share: the folder's layout, and processes known by files.
# Sourced, never run. Everything lies under $FOLDER. What wants no token listens to this machine alone,
# but for the numbers that Ray tells Prometheus: some of its ports have no switch.
set -euo pipefail
umask 077

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
FOLDER=$(realpath -m "${SWEEPS_CLUSTER:-/var/tmp/sweeps-$(id -un)}")
BIN=${SWEEPS_BIN:-$ROOT/.venv/bin} # where python, ray and mlflow are
export FOLDER BIN HOST
HOST=127.0.0.1

fail() {
  echo "$*" >&2
  exit 1
}

# A process's start in clock ticks, nothing for one that has ended: with it, a number that was given
# out again is not taken for ours.
started_at() {
  { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null || true; } | awk '$1 != "Z" { print $20 }'
}

# The process number of a service that runs; fails where it does not.
pid_of() {
  local pid start
  read -r pid start 2>/dev/null <"$FOLDER/pids/$1" || return 1
  [[ "$(started_at "$pid")" == "$start" ]] && echo "$pid"
}

# launch NAME COMMAND...: in a session of its own.
launch() {
  local name=$1 pid
  shift
  kill_session "$name" # what a service that was killed has left behind
  setsid "$@" >>"$FOLDER/logs/$name.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid $(started_at "$pid")" >"$FOLDER/pids/$name"
}

# end NAME SIGNAL: its first process gets the signal and 20 s, then all of its session are killed.
end() {
  local name=$1 signal=$2 pid
  if pid=$(pid_of "$name"); then
    kill -s "$signal" "$pid" 2>/dev/null || true
    for _ in {1..100}; do
      pid_of "$name" >/dev/null || break
      sleep 0.2
    done
    echo "$name: stopped"
  fi
  kill_session "$name"
  rm -f "$FOLDER/pids/$name"
}

# A session's number is that of its first process, and nobody else's while any of it lives.
kill_session() {
  local pid start now
  read -r pid start 2>/dev/null <"$FOLDER/pids/$1" || return 0
  now=$(started_at "$pid")
  [[ -z "$now" || "$now" == "$start" ]] || return 0
  ps -o pid= -s "$pid" | xargs -r kill -KILL 2>/dev/null || true
}

# wait_for NAME SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local name=$1 seconds=$2
  shift 2
  for ((i = 0; i < seconds * 5; i++)); do
    "$@" >/dev/null 2>&1 && return
    pid_of "$name" >/dev/null || fail "$name ended: $(tail -n 5 "$FOLDER/logs/$name.log")"
    sleep 0.2
  done
  fail "$name does not answer after $seconds s; see $FOLDER/logs/$name.log"
}

# The names of Ray's services in the order of their start.
ray_services() {
  local file
  [[ -e "$FOLDER/pids/head" ]] && echo head
  for file in "$FOLDER"/pids/worker-*; do
    [[ -e "$file" ]] && basename "$file"
  done
  return 0
}

# ask PORT PATH: the token on the standard input, so that no list of processes shows it.
ask() {
  printf 'Authorization: Bearer %s' "$(<"$FOLDER/token")" |
    curl --silent --fail --max-time 5 --header @- "http://$HOST:$1$2"
}

# Ray's ids of those that it takes for alive, a line each.
alive_nodes() {
  ask "$DASHBOARD_PORT" "/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE" |
    grep -o '"node_id": *"[0-9a-f]*"' | sort || true
}
