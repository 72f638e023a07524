#!/bin/sh
# postgres.sh install DATA | serve DATA PORT SYNCHRONOUS_COMMIT: a PostgreSQL of its own below DATA, of the newest version here.
# It refuses to run as root; the superuser of the cluster is always postgres, who needs no password on loopback.
set -eu
here="$(dirname "$0")"
programs="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
cluster="$2/cluster"
case "$1" in
  install)
    mkdir "$cluster"
    [ "$(id -u)" != 0 ] || chown postgres: "$cluster"
    chmod 700 "$cluster"
    # initdb syncs what it makes; the name of the folder is ours.
    sync "$2"
    exec sh "$here/as-user.sh" postgres "$programs/initdb" --pgdata "$cluster" --username postgres --auth trust \
      --encoding UTF8 --locale C
    ;;
  serve)
    exec sh "$here/as-user.sh" postgres "$programs/postgres" -D "$cluster" -p "$3" -c listen_addresses=127.0.0.1 \
      -c dynamic_shared_memory_type=mmap -c unix_socket_directories= -c "synchronous_commit=$4" -c max_connections=100 -c autovacuum=off
    ;;
esac
