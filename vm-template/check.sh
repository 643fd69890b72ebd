#!/usr/bin/env bash
# Tries the template out in a Debian root, as far as that goes without a container engine or a VM.
# Argument: the gateway's binary. Run as root. README.md says what it shows and what it does not.
#
# The script goes through three places: this machine (packages, the root), an outer one with
# namespaces of its own (the sandbox, what asks it), and the VM (namespaces and a cgroup of its own,
# the Debian root, a virtual network cable to the outer one). What is killed takes the rest along.
# shellcheck disable=SC2016 # much here is for another shell
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${PANORAMA_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/panorama-gateway-ci}
packages=bash,ca-certificates,curl,git,python3,systemd,tini
outside=10.213.0.1
inside=10.213.0.2
url=http://$outside:54321
drives=/panorama/drives
config=/var/lib/panorama/gateway
failed=0
steps=0
declare -a missing=()

ok() { steps=$((steps + 1)); printf 'ok    %s\n' "$*"; }
bad() {
  steps=$((steps + 1)) failed=$((failed + 1))
  printf 'FAIL  %s\n' "$*"
}
not_here() { missing+=("$*"); printf 'skip  %s\n' "$*"; }
die() { printf 'FAIL  %s\n' "$*"; exit 1; }

# A step: what it shows, then the command that shows it. What the command says is told when it fails.
# In this very shell, whose children it may wait for.
shows() {
  local what=$1
  shift
  if "$@" >"$scratch/said" 2>&1; then
    ok "$what"
  else
    bad "$what: $* said:"
    tail -n 8 "$scratch/said"
  fi
}
within() { # seconds, command: asks again until it is so
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { "$@"; return; }
    sleep 0.1
  done
}
equals() { [ "$1" = "$2" ] || { printf '%q, not %q\n' "$1" "$2"; return 1; }; }
fails() { ! "$@"; }

# ---- This machine: the template's files, the Debian root ----

files_are_sound() {
  local file
  for file in "$here"/*.sh; do shows "syntax of ${file##*/}" bash -n "$file"; done
  if command -v shellcheck >/dev/null; then
    shows "shellcheck has nothing to say" shellcheck "$here"/*.sh
  else
    not_here "shellcheck is not installed"
  fi
}

# systemd complains of programs that are not there: they are in the root.
unit_is_sound() {
  local said
  if ! command -v systemd-analyze >/dev/null; then
    not_here "systemd-analyze is not installed"
    return
  fi
  said=$(systemd-analyze --system --man=no --generators=no --recursive-errors=no \
    --root="$root" verify "/etc/systemd/system/panorama-gateway.service" 2>&1 |
    grep panorama-gateway || true)
  shows "systemd-analyze verify accepts the unit" equals "$said" ""
}

mirror() {
  local found
  found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list \
    2>/dev/null | grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 || true)
  echo "${found:-http://deb.debian.org/debian}" | tr -d ' '
}

# The suite of the image, else this machine's own.
make_root() {
  local suite tarball own
  own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  for suite in "$(sed -n 's/^ARG DEBIAN=//p' "$here/Dockerfile")" "$own"; do
    tarball=$cache/vm-root-$suite-$(dpkg --print-architecture)-$(echo "$packages" | cksum | cut -d' ' -f1).tar
    if [ -s "$tarball" ] || debootstrapped "$suite" "$tarball"; then
      mkdir "$root"
      tar -xf "$tarball" -C "$root"
      ok "a Debian root ($suite, ${tarball##*/})"
      [ "$suite" = "$(sed -n 's/^ARG DEBIAN=//p' "$here/Dockerfile")" ] ||
        not_here "the root is $suite, the image another"
      return
    fi
  done
  die "no Debian root could be made; the end of its log: $(tail -n 3 "$scratch/debootstrap.log")"
}
debootstrapped() { # suite, tarball
  local dir=$scratch/fresh
  command -v debootstrap >/dev/null || die "debootstrap is not installed"
  printf '…     debootstrap %s from %s\n' "$1" "$(mirror)"
  rm -rf --one-file-system "$dir"
  debootstrap --variant=minbase --include="$packages" "$1" "$dir" "$(mirror)" \
    >"$scratch/debootstrap.log" 2>&1 || return 1
  rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/*
  mkdir -p "${2%/*}"
  tar -cf "$2.$$" -C "$dir" --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' . &&
    mv "$2.$$" "$2"
  rm -rf --one-file-system "$dir"
}

install_template() {
  mkdir -p "$root/tmp/vm-template"
  cp "$here"/*.sh "$here"/*.service "$root/tmp/vm-template/"
  cp "$binary" "$root/tmp/panorama-gateway"
  chroot "$root" sh /tmp/vm-template/install.sh /tmp/panorama-gateway
  # Once more, as an upgrade of the template does.
  chroot "$root" sh /tmp/vm-template/install.sh /tmp/panorama-gateway
  rm -rf "$root/tmp/vm-template" "$root/tmp/panorama-gateway"
  chroot "$root" panorama-gateway --version >/dev/null
}

# ---- The outer place: the sandbox and who asks it ----

host() { env -i HOME="$scratch" PATH=/usr/sbin:/usr/bin:/sbin:/bin "$binary" "$@"; }
sandbox() {
  local command=$1
  shift
  case $command in
    drive | secret | submit) set -- "$1" --data-dir "$scratch/control" "${@:2}" ;;
    *) set -- --data-dir "$scratch/control" "$@" ;;
  esac
  host sandbox "$command" "$@"
}
# Prints a part of the JSON on stdin: an expression of Python over `it`.
of() { python3 -c "import json,sys; it=json.load(sys.stdin); print($1)"; }
gateway_is() { # status
  local seen
  seen=$(sandbox gateways --json | of "','.join(g['status'] for g in it)")
  equals "$seen" "$1"
}
job() { sandbox submit shell-exec --wait -- "$@" 2>/dev/null; }
job_json() { sandbox submit shell-exec --wait --json "$@" 2>/dev/null || true; }

start_sandbox() {
  host sandbox serve --listen "${url#http://}" --allow-remote --data-dir "$scratch/control" \
    >"$scratch/sandbox.log" 2>&1 &
  within 20 sandbox gateways || die "the sandbox: $(tail -n 3 "$scratch/sandbox.log")"
}

new_token() {
  sandbox vm-token --json >"$scratch/token"
  equals "$(of "it['url']" <"$scratch/token")" "$url"
}
token() { of "it['$1']" <"$scratch/token"; }

# ---- The VM ----

# Its first process, which has mounted the root; further ones come by `vm`. Arguments: the init.
boot='
set -e
root=$1; shift
[ -z "$GROUP" ] || { mkdir -p "$GROUP/init"; echo $$ >"$GROUP/init/cgroup.procs"; }
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs dev
for device in null zero full random urandom tty; do
  touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
[ -z "$GROUP" ] || mount -t cgroup2 cgroup2 sys/fs/cgroup
hostname panorama-vm
mkdir -p run/old
pivot_root . run/old
exec chroot . /bin/sh -c "umount -l /run/old; rmdir /run/old; touch /run/booted; exec \"\$@\"" sh "$@"
'

power_on() { # the init and its arguments
  local number
  machines=$((machines + 1)) number=$machines
  group=
  if [ -n "$cgroups" ]; then
    group=$cgroups/vm-$number
    mkdir -p "$group"
  fi
  # It unshares in its own cgroup, so that this is its root.
  (
    [ -z "$group" ] || echo "$BASHPID" >"$group/cgroup.procs"
    exec env -i GROUP="$group" PATH=/usr/sbin:/usr/bin:/sbin:/bin container=panorama-check \
      unshare --net --pid --mount --uts --ipc --cgroup --fork --kill-child \
      bash -c "$boot" boot "$root" "$@" >"$scratch/vm-$number.log" 2>&1 </dev/null
  ) &
  vm_shell=$!
  within 10 first_process || die "the VM did not start: $(cat "$scratch/vm-$number.log")"
  init=$(first_process)
  within 10 vm test -e /run/booted || die "the VM did not start: $(cat "$scratch/vm-$number.log")"
  if [ -n "$group" ]; then
    # A cgroup with processes of its own hands nothing down.
    mkdir -p "$cgroups/outer"
    echo "$vm_shell" >"$cgroups/outer/cgroup.procs"
    hand_down "$group"
  fi
  ip link add "vm$number" type veth peer name eth0 netns "$init"
  ip address replace "$outside/32" dev lo
  ip link set "vm$number" up
  ip route replace "$inside/32" dev "vm$number" src "$outside"
  nsenter -t "$init" -n ip address add "$inside/32" dev eth0
  nsenter -t "$init" -n ip link set lo up
  nsenter -t "$init" -n ip link set eth0 up
  nsenter -t "$init" -n ip route add "$outside/32" dev eth0
}
first_process() {
  local found=
  read -r found _ <"/proc/$vm_shell/task/$vm_shell/children" || true
  [ -n "$found" ] && echo "$found"
}
power_off() {
  kill -9 "$init" 2>/dev/null || true
  wait "$vm_shell" 2>/dev/null || true
  ip link delete "vm$machines" 2>/dev/null || true
}
# Gives a cgroup the controllers that there are; none where another hierarchy has them.
hand_down() {
  local controller
  for controller in cpu memory pids; do
    echo "+$controller" >"$1/cgroup.subtree_control" 2>/dev/null || true
  done
}
vm() { nsenter -t "$init" -m -u -i -n -p -C -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
in_vm() { vm sh -c "$1"; }
as_agent() { vm setpriv --reuid panoagent --regid panoagent --init-groups sh -c "$1"; }
# What the image sets, and what whoever runs it gives.
variables() {
  sed -n '/^ENV/,/[^\\]$/p' "$here/Dockerfile" | grep -oE '[A-Z_]+=[^ ]+'
  if [ "${1:-}" != without-token ]; then
    echo "PANORAMA_VM_BOOTSTRAP_TOKEN=${1:-$(token token)}"
    echo "PANORAMA_SUPABASE_URL=$(token url)"
    echo "PANORAMA_SUPABASE_ANON_KEY=$(token anon_key)"
  fi
  echo PANORAMA_VM_JOB_PIDS_MAX=200
  echo PANORAMA_DRIVE_SYNC_ENABLED=1
}

# The image's ENTRYPOINT, beside the VM's own init: so it is seen what it leaves behind.
start_entrypoint() {
  local -a given entrypoint
  mapfile -t given < <(variables "$@")
  mapfile -t entrypoint < <(sed -n 's/^ENTRYPOINT //p' "$here/Dockerfile" | of '"\n".join(it)')
  starts=$((starts + 1))
  (
    if [ -n "$group" ]; then
      mkdir -p "$group/start-$starts"
      echo "$BASHPID" >"$group/start-$starts/cgroup.procs"
    fi
    exec nsenter -t "$init" -m -u -i -n -p -C -- env -i TINI_SUBREAPER=1 HOME=/root \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${given[@]}" \
      sh -c 'echo $$ >/run/entrypoint.pid; until [ -e /run/go ]; do sleep 0.01; done; exec "$@"' \
      sh "${entrypoint[@]}"
  ) >"$scratch/start-$starts.log" 2>&1 </dev/null &
  starter=$!
  within 10 vm test -e /run/entrypoint.pid
  # It waits outside of the VM, and is not to be in the cgroup that the gateway finds.
  [ -z "$group" ] || echo "$starter" >"$cgroups/outer/cgroup.procs"
  vm touch /run/go
}
said() { tail -n 5 "$scratch/start-$starts.log"; }
stops_by_sigterm() {
  local code=0
  in_vm 'kill -TERM "$(cat /run/entrypoint.pid)"'
  wait "$starter" || code=$?
  vm rm -f /run/entrypoint.pid /run/go
  equals "$code" 0 || { said; return 1; }
}
# The VM's init and its sleep, and who asks.
nothing_is_left() {
  local left
  left=$(in_vm 'for at in /proc/[0-9]*; do
    case $(cat "$at/comm" 2>/dev/null) in ""|tini|sleep|sh|cat|env) ;; *) cat "$at/comm" ;; esac
  done')
  equals "$left" ""
}

# ---- What is shown ----

refused_at_once() {
  local code=0
  start_entrypoint forged
  wait "$starter" || code=$?
  vm rm -f /run/entrypoint.pid /run/go
  equals "$code" 1 || { said; return 1; }
  in_vm "! grep -q gatewayId $config/gateway.json"
}

bootstrap_and_heartbeat() {
  local began
  shows "the entrypoint refuses to be another user's" fails as_agent panorama-vm-entrypoint
  shows "a forged token ends it with exit code 1" refused_at_once
  began=${EPOCHREALTIME/./}
  start_entrypoint
  if within 60 gateway_is ready; then
    ok "bootstrap by the entrypoint, online after $(((${EPOCHREALTIME/./} - began) / 1000)) ms"
  else
    said
    die "the gateway is not online: $(sandbox gateways)"
  fi
  vm_id=$(token vm_id)
  shows "gateway.json is this VM's" in_vm "grep -q $vm_id $config/gateway.json"
  shows "the state dir is 0700, root's" equals "$(vm stat -c '%a %U' "$config")" "700 root"
  shows "the work dir is the agent user's" \
    equals "$(vm stat -c '%U' /var/lib/panorama/work)" panoagent
  shows "the health check says ok" vm panorama-vm-healthcheck
}

jobs_are_confined() {
  local row pid gateway seen
  local -a forbidden
  shows "the team's toggle is off: a command is refused" fails job true
  sandbox full-control on >/dev/null 2>&1
  shows "a command runs as the agent user" \
    equals "$(job 'id -un; pwd; echo $HOME; echo $TMPDIR')" $'panoagent\n/\n/home/panoagent\n/tmp'
  shows "it finds the image's tools" \
    job 'bash --version && git --version && curl --version && python3 --version'
  shows "it can write in its home and in /tmp" job 'date > ~/file && date > /tmp/file'
  gateway=$(vm sed -n 's/[^0-9]*\([0-9]*\).*/\1/p;q' "$config/gateway.pid")
  forbidden=("ls $config" "cat $config/gateway.json" "cat $config/gateway.log"
    "cat /proc/$gateway/environ" "kill -0 $gateway" "cat /proc/1/environ" "touch /usr/local/bin/x"
    "touch /var/lib/panorama/x")
  seen=$(job "$(printf '%s && echo "could: %s"; ' "${forbidden[@]/%/ >\/dev/null 2>&1}")echo asked")
  shows "it cannot read state, logs, variables; nor signal the gateway, nor write beside its work" \
    equals "$seen" asked
  shows "it does not see token, backend or settings" \
    equals "$(job 'env | grep -E "TOKEN|SUPABASE|PANORAMA_GATEWAY"; true')" ""
  row=$(job_json -- 'setsid sleep 4321 </dev/null >/dev/null 2>&1 & echo $!')
  pid=$(of "it['result']['stdout'].strip()" <<<"$row")
  shows "its background work ends with it" in_vm "[ -n '$pid' ] && ! [ -e /proc/$pid ]"
  shows "the result says who ran it and as what" equals \
    "$(of "it['result']['exec_user'], it['result']['workload_id'] == 'job-' + it['id']" <<<"$row")" \
    "panoagent True"
  if [ -n "$cgroups" ]; then
    shows "it ran in a cgroup that was empty after it" equals \
      "$(of "it['result']['process_tree_contained']" <<<"$row")" True
  fi
  row=$(of "it['result']['readiness_evidence']" <<<"$row")
  printf '      evidence: %s\n' "$row"
  case $row in *"not enforced here"*) not_here "limits of cgroups: no controllers in the v2 hierarchy" ;; esac
}

secrets_are_placeholders() {
  local seen
  sandbox secret add deploy-key >/dev/null
  seen=$(sandbox submit shell-exec --wait --secret-env KEY=deploy-key \
    -- 'printf %s "$KEY"' 2>/dev/null)
  shows "a secret is a placeholder" grep -qE '^pano_sec_[0-9a-f]{36}$' <<<"$seen"
  shows "an unknown secret refuses the command" fails sandbox submit shell-exec --wait \
    --secret-env KEY=no-such-secret -- true
}

refusals() {
  local word
  for word in "full-control disable" "service install" "start --daemon"; do
    shows "refused in a VM: $word" fails in_vm "panorama-gateway --config-dir $config $word"
  done
}

restart_and_stop() {
  local before
  before=$(vm grep -o '"gatewayId": *"[^"]*"' "$config/gateway.json")
  shows "SIGTERM ends it with exit code 0" stops_by_sigterm
  shows "the team sees it offline" within 5 gateway_is offline
  shows "nothing is left running" nothing_is_left
  shows "the health check says so" fails vm panorama-vm-healthcheck
  start_entrypoint
  shows "it starts again with the used token" within 30 gateway_is ready
  shows "as the same gateway" equals "$(vm grep -o '"gatewayId": *"[^"]*"' "$config/gateway.json")" "$before"
  shows "and takes commands" equals "$(job 'id -un')" panoagent
  sandbox submit shell-exec -- 'sleep 2; date > ~/drained' >/dev/null 2>&1
  within 10 running_job || true
  shows "SIGTERM lets a command end, then exit code 0" stops_by_sigterm
  shows "the command has ended" vm test -s /home/panoagent/drained
  start_entrypoint without-token
  shows "it starts again without token and backend" within 30 gateway_is ready
  shows "and takes commands" equals "$(job 'id -un')" panoagent
  synced_file
  shows "SIGTERM ends it once more" stops_by_sigterm
  shows "nothing is left running" nothing_is_left
}
running_job() { [ "$(sandbox jobs --status running --json | of 'len(it)')" = 1 ]; }

# A file that goes both ways between a drive and the VM. Needs a gateway that syncs drives, and a
# bootstrap that answers with a token for them.
synced_file() {
  if ! binary_syncs >/dev/null 2>&1; then
    not_here "a synced file: this binary knows no drive sync"
  elif ! vm grep -q '"driveSync"' "$config/gateway.json"; then
    not_here "a synced file: the bootstrap gave no token for drives"
  else
    shows "a drive's folder is the agent user's" within 20 \
      equals_now panoagent vm stat -c '%U' "$drives/shared"
    shows "what is in the drive comes into the folder" within 20 equals_now "from the team" \
      job "cat $drives/shared/theirs.txt"
    shows "a command changes it and adds a file" \
      job "echo from a job >$drives/shared/ours.txt && echo more >>$drives/shared/theirs.txt"
    shows "the file of a command comes into the drive" within 20 equals_now "from a job" drive_file ours.txt
    shows "and the change, too" within 20 equals_now $'from the team\nmore' drive_file theirs.txt
    shows "a command cannot put another folder in the place of the drive's" \
      fails job "mv $drives/shared $drives/other"
    shows "drive-sync status says how it is" \
      in_vm "PANORAMA_GATEWAY_CONFIG_DIR=$config panorama-gateway drive-sync status"
  fi
}

binary_syncs() { host drive-sync --help; } >/dev/null 2>&1
drive_file() { sandbox drive get "$1" -; }
# Like equals, but for what a command says now.
equals_now() {
  local wanted=$1
  shift
  equals "$("$@")" "$wanted"
}

# The unit, by the root's own systemd as the VM's first process.
unit_in_systemd() {
  local said
  if [ -z "$cgroups" ]; then
    not_here "the unit under systemd needs cgroups of version 2"
    return
  fi
  # Another VM: the same disk, without the first one's identity.
  rm -rf "${root:?}$config" "${root:?}/var/lib/panorama/work"
  shows "a token for another VM" new_token
  mkdir -p "$root/etc/panorama"
  variables | grep -E 'TOKEN|SUPABASE|JOB' >"$root/etc/panorama/vm.env"
  chmod 0600 "$root/etc/panorama/vm.env"
  ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"
  chroot "$root" systemctl enable panorama-gateway.service >/dev/null 2>&1
  power_on /lib/systemd/systemd
  if ! within 30 systemctl_says is-active panorama-gateway.service active; then
    bad "systemd starts the unit: $(vm systemctl status panorama-gateway.service 2>&1 | tail -n 5; tail -n 5 "$scratch/vm-$machines.log")"
    power_off
    return
  fi
  ok "systemd starts the unit, Type=notify"
  shows "systemd hears what the gateway says" \
    grep -q 'Up' <(vm systemctl show --property=StatusText panorama-gateway.service)
  sandbox full-control on --gateway "$(unit_gateway)" >/dev/null 2>&1
  unit_job() { sandbox submit shell-exec --gateway "$(unit_gateway)" --wait "$@" 2>/dev/null; }
  shows "a command runs as the agent user" equals "$(unit_job -- 'id -un')" panoagent
  said=$(unit_job --json -- 'cat /proc/self/cgroup' || true)
  shows "in a cgroup below the delegated one" \
    grep -q '^0::.*/panorama-gateway.service/panorama-jobs-' <(of "it['result']['stdout']" <<<"$said")
  shows "which was empty after it" equals "$(of "it['result']['process_tree_contained']" <<<"$said")" True
  shows "it cannot read state or variables" fails unit_job -- "cat $config/gateway.json /etc/panorama/vm.env"
  vm rm /etc/panorama/vm.env
  vm systemctl restart panorama-gateway.service
  shows "it restarts without the file of variables" systemctl_says is-active panorama-gateway.service active
  vm systemctl kill --kill-whom=main --signal=KILL panorama-gateway.service
  shows "killed, it is started again" within 30 systemctl_says show NRestarts=1
  within 30 systemctl_says is-active panorama-gateway.service active || true
  vm systemctl stop panorama-gateway.service
  shows "systemd stops it in good order" systemctl_says show Result=success
  shows "no process and no cgroup of it is left" \
    equals "$(in_vm 'find /sys/fs/cgroup -name "panorama-*"; pidof panorama-gateway || true')" ""
  in_vm "mv $config/gateway.json /root/"
  vm systemctl start panorama-gateway.service >/dev/null 2>&1 || true
  shows "without an identity it ends with 4" systemctl_says show ExecMainStatus=4
  shows "and is not started again" systemctl_says is-active panorama-gateway.service failed
  power_off
}
unit_gateway() { vm sed -n 's/.*"gatewayId": *"\([^"]*\)".*/\1/p' "$config/gateway.json"; }
systemctl_says() {
  case $1 in
    show) equals "$(vm systemctl show --property="${2%%=*}" panorama-gateway.service)" "$2" ;;
    *) equals "$(vm systemctl "$1" "$2" 2>&1)" "$3" ;;
  esac
}

# ---- The three places ----

cgroup_mount() {
  mkdir -p "$scratch/cgroup"
  mount -t cgroup2 cgroup2 "$scratch/cgroup" 2>/dev/null && [ -e "$scratch/cgroup/cgroup.procs" ]
}

outer() {
  cgroups='' machines=0 starts=0
  if cgroup_mount && mkdir "$scratch/cgroup/panorama-check-$name" 2>/dev/null; then
    cgroups=$scratch/cgroup/panorama-check-$name
    hand_down "$scratch/cgroup"
    hand_down "$cgroups"
  else
    not_here "cgroups of version 2 cannot be had: the run shim alone holds commands"
  fi
  ip link set lo up
  ip address replace "$outside/32" dev lo
  start_sandbox
  shows "a token of sandbox vm-token" new_token
  # In place before the VM is there: so it finds them when it first looks.
  if binary_syncs; then
    sandbox drive create Shared >/dev/null
    echo "from the team" >"$scratch/theirs.txt"
    sandbox drive put "$scratch/theirs.txt" >/dev/null
  fi
  power_on /usr/bin/tini -- sleep infinity
  ok "a VM: namespaces, network, $([ -n "$cgroups" ] && echo "a cgroup" || echo "no cgroup")"
  bootstrap_and_heartbeat
  jobs_are_confined
  secrets_are_placeholders
  refusals
  restart_and_stop
  power_off
  unit_in_systemd
  not_here "the image itself: no container engine builds it here; npm and the agent CLIs are not in this root"
  not_here "a VM with a kernel of its own, and a real backend"
  printf '\n%s steps, %s failed; %s s\n' "$steps" "$failed" "$SECONDS"
  printf 'not shown here: %s\n' "${missing[@]}"
  [ "$failed" = 0 ]
}

# What the cgroups of the VMs have left: the namespaces are gone, so nobody is in them.
sweep_cgroups() {
  local at=$scratch/cgroup
  [ -d "$at" ] && mount -t cgroup2 cgroup2 "$at" 2>/dev/null || return 0
  if [ -d "$at/panorama-check-$$" ]; then
    echo 1 >"$at/panorama-check-$$/cgroup.kill" 2>/dev/null || true
    for _ in 1 2 3 4 5 6 7 8 9; do
      find "$at/panorama-check-$$" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
  fi
  umount "$at"
}

if [ "${1:-}" = --outer ]; then
  binary=$2 root=$3 scratch=$4 name=$5 steps=$6 failed=$7 SECONDS=$8
  missing=("${@:9}")
  outer
  exit
fi
[ $# = 1 ] || { echo "usage: ${0##*/} BINARY" >&2; exit 2; }
binary=$(realpath "$1")
[ "$(id -u)" = 0 ] || die "only root can make a Debian root and namespaces"
for tool in unshare nsenter ip python3 tar; do
  command -v "$tool" >/dev/null || die "$tool is not installed"
done
scratch=$(mktemp -d)
trap 'sweep_cgroups; rm -rf --one-file-system "$scratch"' EXIT
root=$scratch/root
files_are_sound
make_root
shows "the template installs, and installs again" install_template
unit_is_sound
unshare --net --mount --pid --fork --kill-child --mount-proc \
  bash "${BASH_SOURCE[0]}" --outer "$binary" "$root" "$scratch" "$$" \
  "$steps" "$failed" "$SECONDS" "${missing[@]}"
