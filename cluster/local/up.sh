#!/usr/bin/env bash
# A cluster on this machine: a head, worker nodes as processes of their own, and an MLflow server
# on PostgreSQL. Run again, it starts what does not run and leaves the rest alone.
#   cluster/local/up.sh [WORKER_NODES] [CPUS_PER_NODE]      2 nodes of 1 CPU if not given
#   source FOLDER/env; ray job submit --working-dir . -- python sweeps/mixing.py SWEEP.yaml
# $SWEEPS_CLUSTER is the folder of all its files (a short path on a disk that lasts).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NODES=${1:-2}
CPUS=${2:-1}
AS_POSTGRES=(env) # PostgreSQL refuses to run as root: root lends it Debian's user
((EUID != 0)) || AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups)

find_programs() {
  local name
  for name in curl setsid setpriv; do
    command -v "$name" >/dev/null || fail "$name is missing: apt-get install curl util-linux"
  done
  for name in python ray mlflow; do
    [[ -x "$BIN/$name" ]] || fail "$BIN/$name is missing: run make install, or set SWEEPS_BIN to its folder"
  done
  "$BIN/python" -c 'import psycopg2' 2>/dev/null ||
    fail "psycopg2 is missing: $BIN/python -m pip install -c constraints.txt -e '.[server]'"
  POSTGRES_BIN=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  [[ -x "${POSTGRES_BIN:-}/initdb" ]] || fail "PostgreSQL is missing: apt-get install postgresql"
}

make_folder() {
  # Ray puts sockets 70 characters below its folder, and a socket's path has at most 107.
  ((${#FOLDER} <= 36)) || fail "$FOLDER: is too long; set SWEEPS_CLUSTER to 36 characters or fewer"
  mkdir -p "$FOLDER"/{pids,logs,postgres,artifacts,storage}
  [[ -e "$FOLDER/token" ]] || secret >"$FOLDER/token"
  [[ -e "$FOLDER/ports" ]] || choose_ports >"$FOLDER/ports"
  # shellcheck source=/dev/null
  source "$FOLDER/ports"
  # PostgreSQL's user must get to its folder.
  if ((EUID == 0)); then
    chmod 711 "$FOLDER"
    chown postgres: "$FOLDER/postgres"
    "${AS_POSTGRES[@]}" test -w "$FOLDER/postgres" ||
      fail "$FOLDER: user postgres may not enter it; set SWEEPS_CLUSTER to a folder outside /root"
  fi
}

secret() { "$BIN/python" -c 'import secrets; print(secrets.token_hex(32))'; }

# Chosen once and kept, so that a server that is started again has its old address.
choose_ports() {
  "$BIN/python" - <<'PYTHON'
import contextlib, random, socket
names = ["POSTGRES", "MLFLOW", "GCS", "DASHBOARD", "AGENT", "CLIENT"]
# Below those that the kernel hands out, which a Ray that starts takes by the dozen.
for port in random.sample(range(20_000, 32_000), 1000):
    if not names:
        break
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        print(f"{names.pop()}_PORT={port}")
PYTHON
}

postgres_asks() {
  PGPASSFILE=$FOLDER/pgpass "$POSTGRES_BIN/psql" --no-password --host "$HOST" \
    --port "$POSTGRES_PORT" --username mlflow --dbname "$1" --tuples-only --command "$2"
}

start_postgres() {
  local data=$FOLDER/postgres/data password
  if [[ ! -e "$data/PG_VERSION" ]]; then
    rm -rf "$data" # a set-up that did not end
    password=$(secret)
    echo "$HOST:$POSTGRES_PORT:*:mlflow:$password" >"$FOLDER/pgpass"
    echo "$password" >"$FOLDER/postgres/password"
    ((EUID != 0)) || chown postgres: "$FOLDER/postgres/password"
    "${AS_POSTGRES[@]}" "$POSTGRES_BIN/initdb" --pgdata "$data" --username mlflow --auth scram-sha-256 \
      --pwfile "$FOLDER/postgres/password" --encoding UTF8 --locale C >"$FOLDER/logs/initdb.log"
    rm "$FOLDER/postgres/password"
  fi
  if ! pid_of postgres >/dev/null; then
    launch postgres "${AS_POSTGRES[@]}" "$POSTGRES_BIN/postgres" -D "$data" -h "$HOST" \
      -p "$POSTGRES_PORT" -c unix_socket_directories=
  fi
  wait_for postgres 60 postgres_asks postgres 'select 1'
  if ! postgres_asks mlflow 'select 1' >/dev/null 2>&1; then
    postgres_asks postgres 'create database mlflow' >/dev/null
  fi
}

start_mlflow() {
  if ! pid_of mlflow >/dev/null; then
    MLFLOW_BACKEND_STORE_URI=postgresql+psycopg2://mlflow@$HOST:$POSTGRES_PORT/mlflow \
      PGPASSFILE=$FOLDER/pgpass MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
      launch mlflow "$BIN/mlflow" server --host "$HOST" --port "$MLFLOW_PORT" --workers 1 \
      --artifacts-destination "$FOLDER/artifacts"
  fi
  wait_for mlflow 120 curl --silent --fail --max-time 5 "http://$HOST:$MLFLOW_PORT/health"
}

# What `source FOLDER/env` gives a shell that submits, and every node.
write_environment() {
  cat >"$FOLDER/env" <<ENVIRONMENT
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH='$FOLDER/token'
export RAY_ADDRESS=http://$HOST:$DASHBOARD_PORT
export MLFLOW_TRACKING_URI=http://$HOST:$MLFLOW_PORT
export SWEEPS_HOME='$FOLDER/storage'
export PATH='$BIN':"\$PATH"
ENVIRONMENT
}

start_ray() {
  local i
  # shellcheck source=/dev/null
  source "$FOLDER/env"
  unset RAY_ADDRESS
  export RAY_USAGE_STATS_ENABLED=0
  # Worker ports 0: any that is free, for the nodes share this machine's.
  local common=(--block --node-ip-address "$HOST" --min-worker-port 0 --max-worker-port 0)
  if ! pid_of head >/dev/null; then
    # A node whose head has gone ends by itself, but may take a minute over it.
    for i in $(ray_services); do end "$i" TERM; done
    # No CPUs: drivers only. Its worker nodes may be killed, it may not, as on a cloud.
    launch head "$BIN/ray" start --head "${common[@]}" --num-cpus 0 --num-gpus 0 \
      --resources '{"on_demand": 1000}' --temp-dir "$FOLDER/n0" --port "$GCS_PORT" \
      --dashboard-host "$HOST" --dashboard-port "$DASHBOARD_PORT" --include-dashboard true \
      --dashboard-agent-listen-port "$AGENT_PORT" --ray-client-server-port "$CLIENT_PORT"
  fi
  wait_for head 120 a_node_is_alive
  wait_for head 120 takes_jobs
  for ((i = 1; i <= NODES; i++)); do
    pid_of "worker-$i" >/dev/null || start_worker "worker-$i"
  done
}

# The head's agent, which starts jobs, comes after the node.
takes_jobs() { ask "$AGENT_PORT" /api/local_raylet_healthz; }
a_node_is_alive() { [[ -n "$(alive_nodes)" ]]; }

# Each with a folder of its own, as on machines of their own: in a shared one, a node that unpacks a
# job's files replaces those in which the job runs.
# One after another: `ray start` gives up after 30 s, which many at once can take on a busy machine.
start_worker() {
  local before tries
  before=$(alive_nodes) # one that was just lost may be among them
  for _ in {1..3}; do
    launch "$1" "$BIN/ray" start "${common[@]}" --num-cpus "$CPUS" --num-gpus 0 \
      --dashboard-agent-listen-port 0 --temp-dir "$FOLDER/n${1#worker-}" --address "$HOST:$GCS_PORT"
    for ((tries = 0; tries < 240; tries++)); do
      [[ -z "$(comm -13 <(echo "$before") <(alive_nodes))" ]] || return 0
      pid_of "$1" >/dev/null || break
      sleep 0.5
    done
    end "$1" KILL
  done
  fail "$1 does not start: $(tail -n 5 "$FOLDER/logs/$1.log")"
}

find_programs
make_folder
start_postgres
start_mlflow
write_environment
start_ray
echo "Ray $HOST:$DASHBOARD_PORT with a head and $NODES nodes of $CPUS CPUs; MLflow http://$HOST:$MLFLOW_PORT"
echo "Next: source $FOLDER/env"
