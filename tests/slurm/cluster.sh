#!/usr/bin/env bash
# A real SLURM cluster for the tests: three nodes with emulated GPUs on one Debian 12 machine, as root, without systemd.
#   cluster.sh install          the Debian packages
#   cluster.sh up               start it, or what of it is not running, and say how commands find it
#   cluster.sh reset            the same, and end all jobs
#   cluster.sh down             stop it; the next `up` goes on where it was
#   cluster.sh wipe             stop it and remove all traces but the packages
#   cluster.sh status
#   cluster.sh kill-node n1     likewise freeze-node, and start-node after either
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin

# All that it writes is here, but for the nodes' names in /etc/hosts.
STATE=$(realpath -m "${DITBENCH_SLURM_TEST:-${TMPDIR:-/tmp}/ditbench-slurm-test}")
export SLURM_CONF=$STATE/slurm.conf # the daemons look for their other .conf files beside it
LOG=$STATE/log
MUNGE=$STATE/munge/socket
SQL=$STATE/mysql.sock
HOST=$(uname -n)
HOST=${HOST%%.*}
NODES=(n1 n2 n3)
CPUS=32 MEMORY_MB=64000 GPUS=8 # what each node claims to have
# slurmctld's port is followed by those of the nodes; all are below those that the kernel gives to outgoing connections.
PORT=28170 DBD_PORT=28178 SQL_PORT=28179
HOSTS_MARK="# ditbench-slurm-test"
declare -A PACKAGE=([slurmctld]=slurmctld [slurmd]=slurmd [slurmdbd]=slurmdbd [sbatch]=slurm-client [munged]=munge
  [mariadbd]=mariadb-server-core [mariadb]=mariadb-client-core)

die() {
  echo "cluster.sh: $*" >&2
  exit 1
}

# --- Daemons: each runs in the foreground, has its pid in a file, and its name in its environment ---

running() { # running NAME: false for a pid that is left over, or taken by something else, or a zombie's
  [ -f "$STATE/pids/$1" ] && grep -qszxF "DITBENCH_DAEMON=$STATE/$1" "/proc/$(<"$STATE/pids/$1")/environ"
}

start() { # start NAME COMMAND...: in an environment of its own, for jobs must not depend on who ran this script
  local name=$1
  shift
  running "$name" && return
  (cd / && exec setsid env -i PATH="$PATH" SLURM_CONF="$SLURM_CONF" DITBENCH_DAEMON="$STATE/$name" "$@") \
    </dev/null >>"$LOG/$name.out" 2>&1 &
  echo $! >"$STATE/pids/$name"
}

wait_for() { # wait_for SECONDS NAME COMMAND...: NAME may be that of a daemon which has just been started
  local end=$((SECONDS + $1)) name=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ -f "$STATE/pids/$name" ] && ! kill -0 "$(<"$STATE/pids/$name")" 2>/dev/null; then
      die "$name died: $(tail -n 5 "$LOG/$name.out")"
    fi
    ((SECONDS < end)) || die "timed out waiting for $name, see $LOG"
    sleep 0.1
  done
}

stop() { # stop NAME
  local tries=100
  while running "$1"; do
    if ((tries-- > 0)); then kill "$(<"$STATE/pids/$1")"; else kill -KILL "$(<"$STATE/pids/$1")"; fi
    sleep 0.1
  done
  rm -f "$STATE/pids/$1"
}

# --- Nodes ---

node_pids() { # its slurmd and slurmstepds hold its log open; what jobs run there has its name in the environment
  {
    find /proc/[0-9]*/fd -lname "$LOG/slurmd-$1.log" || true
    { grep -lszxF "SLURMD_NODENAME=$1" /proc/[0-9]*/environ || true; } | xargs -r grep -lszxF "SLURM_CONF=$SLURM_CONF" || true
  } 2>/dev/null | cut -d/ -f3 | sort -u
}

signal_node() { # signal_node SIGNAL NODE
  local pids
  mapfile -t pids < <(node_pids "$2")
  ((${#pids[@]} == 0)) || kill "-$1" "${pids[@]}" 2>/dev/null || true
}

freeze_node() { signal_node STOP "$1"; } # like a node that hangs: its connections stay open

kill_node() { # frozen first, so that it cannot report the death of its jobs
  freeze_node "$1"
  signal_node KILL "$1"
  rm -f "$STATE/pids/slurmd-$1"
}

frozen() { running "slurmd-$1" && grep -qs '^State:.T' "/proc/$(<"$STATE/pids/slurmd-$1")/status"; }

start_node() {
  if frozen "$1"; then kill_node "$1"; fi
  start "slurmd-$1" slurmd -D -N "$1"
}

nodes_ready() { # wakes what an earlier life left down; asks for all nodes, since the state of a single one can be stale
  local node state waiting=0
  while read -r node state; do
    case $state in
      idle | mixed | allocated | completing) continue ;;
      down* | drain* | inval*) scontrol update nodename="$node" state=resume || true ;;
    esac
    waiting=1
  done < <(sinfo --noheader --Node --partition=main --format='%N %T' || echo sinfo failed)
  return $waiting
}

# --- The files ---

write_files() {
  local gpu node port=$PORT
  mkdir -p "$STATE"/{ctld,dev,log,munge,pids,spool}
  # SLURM wants a character device for each GPU, else jobs get no CUDA_VISIBLE_DEVICES.
  for ((gpu = 0; gpu < GPUS; gpu++)); do ln -sfn /dev/null "$STATE/dev/nvidia$gpu"; done
  # The address of a distributed job's first rank is the name of its node.
  for node in "${NODES[@]}"; do
    grep -qxF "127.0.0.1 $node $HOSTS_MARK" /etc/hosts || echo "127.0.0.1 $node $HOSTS_MARK" >>/etc/hosts
  done

  {
    cat <<CONF
ClusterName=ditbench
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/spool/%n
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd-%n.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd-%n.log
MailProg=/bin/true
# Job ids of no earlier cluster: submitit takes the result that an old job of the same id left for the new one's.
FirstJobId=$(($(date +%s) % 60000000))

# No cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none

# Nodes claim more than the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu

# Preempted jobs get the signal they asked for (sbatch --signal), as soon as their time of grace starts.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

# All as quick as it goes. A requeued job starts again after cred_expire + 1 s; it must be longer than a killed job may
# take to vanish (7.5 s with KillWait=2), else its second life meets the first on the same node, which is then drained.
# That a node is dead is known after SlurmdTimeout + 2 MessageTimeout.
AuthInfo=socket=$MUNGE,cred_expire=8
KillWait=2
SlurmdTimeout=5
MessageTimeout=5
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2,bf_min_age_reserve=0
EnforcePartLimits=ALL
ReturnToService=2

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$MUNGE
AccountingStorageTRES=gres/gpu

CONF
    for node in "${NODES[@]}"; do
      echo "NodeName=$node NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((++port)) CPUs=$CPUS RealMemory=$MEMORY_MB" \
        "Gres=gpu:emulated:$GPUS"
    done
    cat <<CONF
PartitionName=DEFAULT Nodes=ALL DefaultTime=5 MaxTime=INFINITE
PartitionName=main Default=YES PriorityTier=10
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=cancel PriorityTier=1 PreemptMode=CANCEL GraceTime=20
CONF
  } >"$SLURM_CONF"

  echo "Name=gpu Type=emulated File=$STATE/dev/nvidia[0-$((GPUS - 1))]" >"$STATE/gres.conf"
  # slurmd loads a plugin though no cgroups are used, and that for v2 needs systemd.
  echo "CgroupPlugin=cgroup/v1" >"$STATE/cgroup.conf"

  # slurmdbd refuses a file that others can read.
  (umask 077 && cat >"$STATE/slurmdbd.conf") <<CONF
AuthInfo=socket=$MUNGE
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL_PORT
StorageUser=slurm
StoragePass=slurm
LogFile=$LOG/slurmdbd.log
PidFile=$STATE/slurmdbd.pid
CONF
}

# --- The verbs ---

install_packages() {
  local command output missing=()
  for command in "${!PACKAGE[@]}"; do
    command -v "$command" >/dev/null || missing+=("${PACKAGE[$command]}")
  done
  ((${#missing[@]})) || return 0
  if [ ! -e /usr/sbin/policy-rc.d ]; then # packages must not start daemons of their own
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    install -m 755 /dev/stdin /usr/sbin/policy-rc.d <<<$'#!/bin/sh\nexit 101'
  fi
  export DEBIAN_FRONTEND=noninteractive
  output=$(apt-get update -q 2>&1 && apt-get install -y -q --no-install-recommends "${missing[@]}" 2>&1) || die "$output"
}

up() {
  local command node
  [ "$(id -u)" = 0 ] || die "run it as root"
  for command in "${!PACKAGE[@]}"; do
    command -v "$command" >/dev/null || die "$command is missing: run $0 install"
  done
  mkdir -p "$STATE"
  [ -O "$STATE" ] || die "$STATE belongs to somebody else"
  [ -f "$SLURM_CONF" ] || [ -z "$(ls -A "$STATE")" ] || die "$STATE is not empty, and no cluster of ours"
  running slurmctld || write_files

  [ -f "$STATE/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom >"$STATE/munge/key")
  start munged munged --foreground --force --key-file="$STATE/munge/key" --socket="$MUNGE" \
    --pid-file="$STATE/munge/pid" --log-file="$LOG/munged.log" --seed-file="$STATE/munge/seed"
  wait_for 10 munged eval "munge -n -S $MUNGE | unmunge -S $MUNGE"

  if [ ! -d "$STATE/mysql/mysql" ]; then
    mariadb-install-db --no-defaults --user=root --datadir="$STATE/mysql" --skip-test-db --innodb-log-file-size=8M \
      >"$LOG/install-db.out" 2>&1 || die "$(tail "$LOG/install-db.out")"
  fi
  start mariadbd mariadbd --no-defaults --user=root --datadir="$STATE/mysql" --socket="$SQL" \
    --pid-file="$STATE/mysql.pid" --log-error="$LOG/mariadbd.log" --bind-address=127.0.0.1 --port=$SQL_PORT \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0 \
    --innodb-lock-wait-timeout=900 # slurmdbd warns of less
  wait_for 60 mariadbd mariadb --no-defaults --socket="$SQL" --execute="SELECT 1"
  mariadb --no-defaults --socket="$SQL" --execute="
    CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'slurm';
    GRANT ALL ON slurm_acct_db.* TO slurm@localhost;"

  # slurmctld needs slurmdbd up for its first start.
  start slurmdbd slurmdbd -D
  wait_for 60 slurmdbd eval "(: <>/dev/tcp/127.0.0.1/$DBD_PORT)"
  start slurmctld slurmctld -D
  wait_for 60 slurmctld eval "scontrol ping | grep -q 'is UP'"
  for node in "${NODES[@]}"; do start_node "$node"; done
  wait_for 60 nodes nodes_ready
  wait_for 30 accounting eval "sacctmgr -n show cluster format=controlhost | grep -q 127.0.0.1"
  echo "export SLURM_CONF=$SLURM_CONF"
}

end_jobs() { # to be called until it succeeds, since a job may have just been requeued; killed, since it may ignore TERM
  local jobs
  scancel --quiet --user=root --state=RUNNING --signal=KILL --full || true
  scancel --quiet --user=root || true
  jobs=$(squeue --noheader) && [ -z "$jobs" ]
}

reset() {
  local node
  if running slurmctld; then
    end_jobs &>/dev/null || true
    for node in "${NODES[@]}"; do # SLURM would wait up to a minute for the end of the jobs of a dead one
      if frozen "$node" || ! running "slurmd-$node"; then scontrol update nodename="$node" state=down reason=reset; fi
    done
  fi
  up
  wait_for 60 jobs end_jobs
}

down() {
  local name node
  if running slurmctld; then (wait_for 15 jobs end_jobs) || true; fi # those of a frozen node do not end
  for node in "${NODES[@]}"; do kill_node "$node"; done
  for name in slurmctld slurmdbd mariadbd munged; do stop "$name"; done
}

wipe() {
  local hosts
  [ -f "$SLURM_CONF" ] || return 0
  down
  rm -rf "$STATE"
  hosts=$(grep -vF "$HOSTS_MARK" /etc/hosts)
  echo "$hosts" >/etc/hosts # written in place, since it is a mount in containers
}

status() { sinfo --Node --format='%N %P %T %c %m %G %E' && squeue; }

case "${1:-}" in
  install) install_packages ;;
  up | reset | down | wipe) "$1" ;;
  status | kill-node | freeze-node | start-node)
    running slurmctld || die "it is not up"
    [ "$1" = status ] || [[ " ${NODES[*]} " == *" ${2:-} "* ]] || die "the nodes are ${NODES[*]}"
    "${1/-/_}" "${@:2}"
    ;;
  *) sed -n '2,9s/^# //p' "$0" && exit 2 ;;
esac
