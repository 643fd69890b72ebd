#!/bin/sh
# Exits 0 while the gateway runs, else 1: containers know no other number. Asks files and the
# gateway itself, no network.
: "${PANORAMA_GATEWAY_CONFIG_DIR:=/var/lib/panorama/gateway}"
export PANORAMA_GATEWAY_CONFIG_DIR
panorama-gateway status --check >/dev/null || exit 1
