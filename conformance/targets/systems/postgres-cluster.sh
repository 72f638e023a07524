#!/bin/sh
# postgres-cluster.sh install DATA SCRATCH HOST FIRST | serve DATA PORT HOST IP PEER SYNCHRONOUS_COMMIT | promote DATA:
# a PostgreSQL server with its data below DATA, in the newest installed version. It is one of two: a primary, and its
# synchronous standby. PEER is NAME=IP of the other one. FIRST is the node that is the primary at the beginning.
#
# What a careful operator does is here:
# - A primary confirms only what its standby has confirmed. A promoted server runs alone, because the operator says by
#   the promotion that the other one is lost. When that one has become its standby, it waits for the standby again.
# - A server without data becomes a standby. It copies the data of the primary, and waits until there is one.
# - A primary looks once per second whether its peer has been promoted. It then throws its data away, and becomes a standby.
set -eu
what="$1"
data="$2"
cluster="$data/cluster"
here="$(dirname "$0")"
programs="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"

as_postgres() { sh "$here/as-user.sh" postgres "$@"; }

# ask IP COMMAND: prints the answer of a server to a command of the replication protocol, or nothing. Clients that wait for
# the standby may have all the other connections.
ask() {
  PGCONNECT_TIMEOUT=2 "$programs/psql" "host=$1 port=$port user=postgres replication=true" -Atc "$2" 2> /dev/null || true
}

peer_is_primary() { [ "$(ask "$peer_ip" 'SHOW in_hot_standby')" = off ]; }

# timeline IP: prints the timeline of a server. A promotion begins a new one.
timeline() { ask "$1" IDENTIFY_SYSTEM | cut -d '|' -f 2; }

# Returns whether this server is a primary, and its peer is one of a later timeline.
is_old_primary() {
  [ ! -e "$cluster/standby.signal" ] && peer_is_primary || return 1
  later="$(timeline "$peer_ip")"
  mine="$(timeline "$ip")"
  [ "${later:-0}" -gt "${mine:-$later}" ]
}

# wait_for_standby NAME: lets the primary wait for this standby from now on; '' for none.
wait_for_standby() {
  echo "synchronous_standby_names = '$1'" > "$cluster/standby.conf"
  sync "$cluster/standby.conf" "$cluster"
}

# A promoted server waits for its standby again when it has one.
end_of_alone() {
  grep -q "''" "$cluster/standby.conf" && [ ! -e "$cluster/standby.signal" ] || return 0
  streams="SELECT count(*) FROM pg_stat_replication WHERE application_name = '$peer' AND state = 'streaming'"
  [ "$("$programs/psql" -h "$ip" -p "$port" -U postgres -Atc "$streams" 2> /dev/null || true)" = 1 ] || return 0
  wait_for_standby "$peer"
  kill -HUP "$server"
}

# Makes a new folder below DATA that PostgreSQL accepts.
make_folder() {
  mkdir "$1"
  [ "$(id -u)" != 0 ] || chown postgres: "$1"
  chmod 700 "$1"
}

copy_primary() {
  echo "$host: waiting for a primary to copy" >&2
  until peer_is_primary; do sleep 0.2; done
  rm -rf "$cluster" "$cluster.new"
  make_folder "$cluster.new"
  # Its name is not that of the standby: the primary must not confirm what only an unfinished copy has.
  as_postgres "$programs/pg_basebackup" --pgdata "$cluster.new" --write-recovery-conf --checkpoint fast \
    --dbname "host=$peer_ip port=$port user=postgres application_name=copy"
  # A copy that was broken off must not count. pg_basebackup has synced its files.
  rm -f "$cluster.new/standby.conf"
  mv "$cluster.new" "$cluster"
  sync "$data"
}

# Waits for at most 5 s until a killed server has disappeared: PostgreSQL does not start while its process id exists.
wait_for_end() {
  ended="$(head -n 1 "$cluster/postmaster.pid" 2> /dev/null || true)"
  for _ in $(seq 50); do
    grep -qs postgres "/proc/$ended/comm" || break
    sleep 0.1
  done
}

case "$what" in
  install)
    # An operator knows whether a cluster is new. An empty disk does not: it may be that of a node that was lost.
    [ ! -e "$3/installed" ] || exit 0
    touch "$3/installed"
    [ "$4" = "$5" ] || exit 0
    make_folder "$cluster"
    sync "$data"
    as_postgres "$programs/initdb" --pgdata "$cluster" --username postgres --auth trust --encoding UTF8 --locale C
    printf 'host all all all trust\nhost replication all all trust\n' >> "$cluster/pg_hba.conf"
    echo "include 'standby.conf'" >> "$cluster/postgresql.conf"
    sync "$cluster/pg_hba.conf" "$cluster/postgresql.conf"
    ;;
  serve)
    port="$3"
    host="$4"
    ip="$5"
    peer="${6%%=*}"
    peer_ip="${6#*=}"
    trap 'kill -INT "$server"; wait "$server"; exit' TERM INT
    while :; do
      if [ ! -d "$cluster" ]; then copy_primary; fi
      [ -e "$cluster/standby.conf" ] || wait_for_standby "$peer"
      wait_for_end
      sh "$here/as-user.sh" postgres "$programs/postgres" -D "$cluster" -p "$port" -c "listen_addresses=127.0.0.1,$ip" \
        -c dynamic_shared_memory_type=mmap -c unix_socket_directories= -c max_connections=300 -c autovacuum=off \
        -c "synchronous_commit=$7" -c wal_keep_size=1GB \
        -c "primary_conninfo=host=$peer_ip port=$port user=postgres application_name=$host" \
        -c wal_sender_timeout=5s -c wal_receiver_timeout=5s -c wal_retrieve_retry_interval=500ms &
      server=$!
      until is_old_primary; do
        kill -0 "$server" 2> /dev/null || { wait "$server"; exit; }
        end_of_alone
        sleep 1
      done
      echo "$host: $peer is the primary of a later timeline" >&2
      kill -QUIT "$server"
      wait "$server" || true
      rm -rf "$cluster"
    done
    ;;
  promote)
    [ -e "$cluster/standby.signal" ] || { echo 'this server is no standby' >&2; exit 1; }
    # A server that is only starting forgets the order to become primary. It writes its state into this file.
    for _ in $(seq 150); do
      ! sed -n 8p "$cluster/postmaster.pid" 2> /dev/null | grep -q 'ready\|standby' || break
      sleep 0.2
    done
    wait_for_standby ''
    kill -HUP "$(head -n 1 "$cluster/postmaster.pid")"
    as_postgres "$programs/pg_ctl" promote -D "$cluster" -t 30
    ;;
esac
