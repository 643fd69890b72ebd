#!/bin/sh
# What a managed VM's container runs: makes the directories that a fresh volume lacks, and becomes the
# gateway. Further arguments go to `start`.
set -eu

state=${PANORAMA_GATEWAY_CONFIG_DIR:=/var/lib/panorama/gateway}
work=${PANORAMA_VM_WORK_DIR:=/var/lib/panorama/work}
agent=${PANORAMA_VM_AGENT_USER:=panoagent}
export PANORAMA_GATEWAY_CONFIG_DIR PANORAMA_VM_WORK_DIR PANORAMA_VM_AGENT_USER

if [ "$(id -u)" != 0 ]; then
  echo "entrypoint: the gateway of a managed VM is root, so that commands can be another user's" >&2
  exit 1
fi
# The state dir is closed to commands, the way to their work dirs is open.
umask 022
mkdir -p "$state" "$work"
chmod 0700 "$state"
# Never through a link: what is at this path may be the agent user's own doing.
chown -h "$agent:" "$work"

exec panorama-gateway start --foreground --mode managed "$@"
