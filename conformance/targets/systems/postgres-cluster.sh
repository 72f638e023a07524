#!/bin/sh
# postgres-cluster.sh install DATA SCRATCH HOST FIRST | serve DATA PORT HOST IP PEER SYNCHRONOUS_COMMIT | promote DATA:
# a PostgreSQL server with its data below DATA, in the newest installed version. It is one of two: a primary, and its
# synchronous standby. PEER is NAME=IP of the other one. FIRST is the node that is the primary at the beginning.
#
# What a careful operator does is here:
# - A primary confirms only what its standby has confirmed, also after a promotion. A server that runs alone confirms
#   nothing. It waits for the other one: a confirmation would be on one disk only.
# - A server without data becomes a standby. It copies the data of the primary, and waits until there is one.
# - A primary looks once per second whether its peer has been promoted. It then throws its data away, and becomes a standby.
set -eu
what="$1"
data="$2"
cluster="$data/cluster"
here="$(dirname "$0")"
programs="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"

as_postgres() { sh "$here/as-user.sh" postgres "$@"; }

# peer_answers SQL: prints the answer of the other server, or nothing.
peer_answers() {
  PGCONNECT_TIMEOUT=1 "$programs/psql" -h "$peer_ip" -p "$port" -U postgres -d postgres -Atc "$1" 2> /dev/null || true
}

peer_is_primary() { [ "$(peer_answers 'SELECT pg_is_in_recovery()')" = f ]; }

# Returns whether this server is a primary, and its peer is one of a later timeline: a promotion begins a timeline.
is_old_primary() {
  [ ! -e "$cluster/standby.signal" ] || return 1
  later="$(peer_answers 'SELECT timeline_id FROM pg_control_checkpoint() WHERE NOT pg_is_in_recovery()')"
  mine="$("$programs/pg_controldata" "$cluster" | sed -n "s/^Latest checkpoint's TimeLineID: *//p")"
  [ "${later:-0}" -gt "${mine:-0}" ]
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
    sync "$cluster/pg_hba.conf"
    ;;
  serve)
    port="$3"
    host="$4"
    peer="${6%%=*}"
    peer_ip="${6#*=}"
    trap 'kill -INT "$server"; wait "$server"; exit' TERM INT
    while :; do
      if [ ! -d "$cluster" ]; then copy_primary; fi
      wait_for_end
      sh "$here/as-user.sh" postgres "$programs/postgres" -D "$cluster" -p "$port" -c "listen_addresses=127.0.0.1,$5" \
        -c dynamic_shared_memory_type=mmap -c unix_socket_directories= -c max_connections=100 -c autovacuum=off \
        -c "synchronous_commit=$7" -c "synchronous_standby_names=$peer" -c wal_keep_size=1GB \
        -c "primary_conninfo=host=$peer_ip port=$port user=postgres application_name=$host" \
        -c wal_sender_timeout=5s -c wal_receiver_timeout=5s -c wal_retrieve_retry_interval=500ms &
      server=$!
      until is_old_primary; do
        kill -0 "$server" 2> /dev/null || { wait "$server"; exit; }
        sleep 1
      done
      echo "$host: $peer is the primary of a later timeline" >&2
      kill -QUIT "$server"
      wait "$server" || true
      rm -rf "$cluster"
    done
    ;;
  promote)
    # A server that is only starting forgets the order. It writes its state into this file.
    for _ in $(seq 150); do
      ! sed -n 8p "$cluster/postmaster.pid" 2> /dev/null | grep -q 'ready\|standby' || break
      sleep 0.2
    done
    as_postgres "$programs/pg_ctl" promote -D "$cluster" -t 30
    ;;
esac
