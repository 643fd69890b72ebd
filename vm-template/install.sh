#!/bin/sh
# Puts a built binary and this template into the Debian system that it runs in, as root: an image
# that is being built, or a VM. Argument: the binary. Doing it again changes nothing but the files.
set -eu

binary=$1
here=$(cd "$(dirname "$0")" && pwd)
agent=panoagent

if ! id "$agent" >/dev/null 2>&1; then
  useradd --create-home --shell /bin/bash --comment "Panorama jobs" "$agent"
fi
# Renamed into place: a file that runs cannot be written to.
install -m 0755 "$binary" /usr/local/bin/.panorama-gateway.new
mv /usr/local/bin/.panorama-gateway.new /usr/local/bin/panorama-gateway
install -m 0755 "$here/entrypoint.sh" /usr/local/bin/panorama-vm-entrypoint
install -m 0755 "$here/healthcheck.sh" /usr/local/bin/panorama-vm-healthcheck
install -d -m 0755 /var/lib/panorama
install -d -m 0700 /var/lib/panorama/gateway
install -d -m 0755 -o "$agent" -g "$agent" /var/lib/panorama/work
# Root's: in a place of its own nobody puts another folder in the place of a drive's.
install -d -m 0755 /panorama /panorama/drives
install -d -m 0755 /etc/systemd/system
install -m 0644 "$here/panorama-gateway.service" /etc/systemd/system/panorama-gateway.service
