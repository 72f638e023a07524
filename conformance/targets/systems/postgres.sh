#!/bin/sh
# postgres.sh install DATA | serve DATA PORT SYNCHRONOUS_COMMIT: a separate PostgreSQL with its data below DATA,
# in the newest installed version. PostgreSQL refuses to run as root. The superuser of the cluster is postgres,
# without a password on loopback.
set -eu
here="$(dirname "$0")"
programs="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
cluster="$2/cluster"
case "$1" in
  install)
    mkdir "$cluster"
    [ "$(id -u)" != 0 ] || chown postgres: "$cluster"
    chmod 700 "$cluster"
    # Sync the name of the folder, which this script made. initdb syncs its own files.
    sync "$2"
    exec sh "$here/as-user.sh" postgres "$programs/initdb" --pgdata "$cluster" --username postgres --auth trust \
      --encoding UTF8 --locale C
    ;;
  serve)
    exec sh "$here/as-user.sh" postgres "$programs/postgres" -D "$cluster" -p "$3" -c listen_addresses=127.0.0.1 \
      -c dynamic_shared_memory_type=mmap -c unix_socket_directories= -c "synchronous_commit=$4" -c max_connections=100 -c autovacuum=off
    ;;
esac
