#!/usr/bin/env bash
# Stops what up.sh started, and nothing else; results and MLflow's database stay in the folder.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for name in $(ray_services | tac); do end "$name" TERM; done
end mlflow TERM
end postgres INT # PostgreSQL's fast shutdown
