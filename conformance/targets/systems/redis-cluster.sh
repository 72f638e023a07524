#!/bin/sh
# redis-cluster.sh install DATA SCRATCH FIRST_IP | serve DATA PORT IP PEERS APPENDFSYNC | promote DATA PORT IP PEERS:
# a Redis server with its data below DATA. It is one of several: a primary, and its replicas. PEERS are the others
# (b=10.0.0.2,c=10.0.0.3). FIRST_IP is the address of the primary at the beginning.
#
# Redis chooses no primary. What a careful operator does is here:
# - The file DATA/primary has the address of the primary. A server without it waits until one of its peers is a primary.
# - `promote` refuses a replica that knows less than another one, and counts the key `plugpull:term` up.
# - Once per second, a replica looks for the primary, and a primary looks for one of a later term. It follows it.
set -eu
what="$1"
data="$2"

# field IP NAME: prints a field of `INFO replication` of a server, or nothing.
field() { ask "$1" info replication | sed -n "s/^$2://p"; }

# ask IP COMMAND…: prints the answer of a server, or nothing.
ask() {
  server="$1"
  shift
  timeout 1 redis-cli -h "$server" -p "$port" "$@" 2> /dev/null | tr -d '\r' || true
}

# Prints the term of a primary, and its address: of the one with the latest term. Prints nothing if none answers.
find_primary() {
  for ip in $peers; do
    if [ "$(field "$ip" role)" = master ]; then echo "$(term_of "$ip") $ip"; fi
  done | sort -n | tail -n 1
}

term_of() {
  term="$(ask "$1" get plugpull:term)"
  echo "${term:-0}"
}

note_primary() {
  echo "$1" > "$data/primary.new"
  sync "$data/primary.new"
  mv "$data/primary.new" "$data/primary"
  sync "$data"
}

# follow_later_primary: one look of a server that runs.
follow_later_primary() {
  found="$(find_primary)"
  [ -n "$found" ] || return 0
  case "$(field "$me" role)" in
    master) [ "${found% *}" -gt "$(term_of "$me")" ] || return 0 ;;
    slave) [ "$(field "$me" master_host)" != "${found#* }" ] || return 0 ;;
    *) return 0 ;;
  esac
  ask "$me" replicaof "${found#* }" "$port" > /dev/null
  note_primary "${found#* }"
}

if [ "$what" != install ]; then
  port="$3"
  me="$4"
  peers="$(echo "$5" | tr , '\n' | sed 's/.*=//')"
fi
case "$what" in
  install)
    # An operator knows whether a cluster is new. An empty disk does not: it may be that of a node that was lost.
    [ ! -e "$3/installed" ] || exit 0
    touch "$3/installed"
    note_primary "$4"
    ;;
  serve)
    if [ ! -e "$data/primary" ] || [ "$(cat "$data/primary")" != "$me" ]; then
      found="$(find_primary)"
      until [ -n "$found" ] || [ -e "$data/primary" ]; do
        sleep 0.2
        found="$(find_primary)"
      done
      [ -z "$found" ] || note_primary "${found#* }"
    fi
    primary="$(cat "$data/primary")"
    # The watch ends with the server, which takes the place of this shell.
    while sleep 1 && kill -0 $$ 2> /dev/null; do follow_later_primary; done &
    set -- "$6"
    [ "$primary" = "$me" ] || set -- "$1" --replicaof "$primary" "$port"
    exec redis-server --bind "$me" --port "$port" --protected-mode no --dir "$data" --appendonly yes --appendfsync "$@" \
      --repl-diskless-sync-delay 0 --repl-ping-replica-period 1 --repl-timeout 5
    ;;
  promote)
    [ "$(field "$me" role)" = slave ] || { echo "$me is no replica" >&2; exit 1; }
    for ip in $peers; do
      offset="$(field "$ip" slave_repl_offset)"
      if [ "${offset:-0}" -gt "$(field "$me" slave_repl_offset)" ]; then
        echo "$ip knows more than $me, and should be promoted" >&2
        exit 1
      fi
    done
    ask "$me" replicaof no one
    ask "$me" incr plugpull:term
    note_primary "$me"
    ;;
esac
