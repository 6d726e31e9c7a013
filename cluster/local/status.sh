#!/usr/bin/env bash
# What of the local cluster runs. Fails where a part that was started does not.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ -e "$FOLDER/ports" ]] || fail "there is no cluster in $FOLDER: run cluster/local/up.sh"
# shellcheck source=/dev/null
source "$FOLDER/ports"
failed=0
shopt -s nullglob
names=("$FOLDER"/pids/*)
((${#names[@]})) || fail "nothing runs in $FOLDER: run cluster/local/up.sh"
for file in "${names[@]}"; do
  name=$(basename "$file")
  if pid=$(pid_of "$name"); then
    echo "$name: runs (process $pid)"
  else
    echo "$name: ended; see $FOLDER/logs/$name.log"
    failed=1
  fi
done
echo "Ray: $(alive_nodes | wc -l) nodes alive, http://$HOST:$DASHBOARD_PORT"
echo "MLflow: http://$HOST:$MLFLOW_PORT"
exit "$failed"
