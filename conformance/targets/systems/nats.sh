#!/bin/sh
# nats.sh DATA PORT [HOST IP ROUTES_PORT PEERS]: a separate NATS server with JetStream, which stores its data below DATA.
# It listens on PORT of loopback. With HOST it is the server of that name in a cluster, listens on IP, and connects to
# the PEERS (b=10.0.0.2,c=10.0.0.3) on ROUTES_PORT.
set -eu
data="$1"
port="$2"
ip="${4:-127.0.0.1}"
{
  cat << CONF
listen: $ip:$port
# The default of 1 MB refuses the large messages of the workload.
max_payload: 8MB
jetstream { store_dir: "$data/nats" }
CONF
  if [ $# -gt 2 ]; then
    routes="$(echo "$6" | sed "s/[^,]*=\([^,]*\)/nats-route:\/\/\1:$5/g")"
    cat << CONF
server_name: $3
cluster { name: plugpull, listen: $ip:$5, routes: [$routes] }
CONF
  fi
} > "$data/nats.conf"
exec /usr/sbin/nats-server -c "$data/nats.conf"
