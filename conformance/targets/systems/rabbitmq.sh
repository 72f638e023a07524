#!/bin/sh
# rabbitmq.sh install DATA [QUEUE_TYPE] | serve DATA PORT EPMD_PORT DIST_PORT QUEUE_TYPE: a RabbitMQ node of its own
# below DATA, with one durable queue. An install with a type makes the queue, and all that belongs to it is on the disk then.
set -eu
what="$1"
data="$2"
home="$data/rabbitmq"

# Erlang makes the cookie at its first start and does not sync it; after a power cut it is empty, and no node starts again.
make_cookie() {
  mkdir "$home"
  head -c 15 /dev/urandom | base64 | tr '+/' 'AB' > "$home/.erlang.cookie"
  chmod 400 "$home/.erlang.cookie"
  sync "$home/.erlang.cookie" "$home" "$data"
}

# configure PORT EPMD_PORT DIST_PORT QUEUE_TYPE
configure() {
  cat > "$home/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$1
load_definitions = $home/definitions.json
log.console = true
log.console.level = warning
log.file = false
CONF
  # The hash is that of the usual password of guest, who may come from loopback only.
  cat > "$home/definitions.json" <<JSON
{
  "vhosts": [{ "name": "/" }],
  "users": [
    {
      "name": "guest",
      "password_hash": "cGx1Z7vBs5leNfxpDTrMGl/f0dEScZmKIg3WlSKxixYzs7iN",
      "hashing_algorithm": "rabbit_password_hashing_sha256",
      "tags": "administrator"
    }
  ],
  "permissions": [{ "user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }],
  "queues": [
    {
      "name": "plugpull",
      "vhost": "/",
      "durable": true,
      "auto_delete": false,
      "arguments": { "x-queue-type": "$4" }
    }
  ]
}
JSON
  echo '[].' > "$home/enabled_plugins"
  export HOME="$home" \
    ERL_EPMD_PORT="$2" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_NODENAME=plugpull@localhost RABBITMQ_DIST_PORT="$3" \
    RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
    RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_LOGS=- \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
}

# Three of them, for the time of the install; asked of Erlang, which is wherever RabbitMQ is.
free_ports() {
  HOME="$home" erl -noinput -eval '
    Probes = [element(2, gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}])) || _ <- [1, 2, 3]],
    [io:format("~b ", [element(2, inet:port(Probe))]) || Probe <- Probes],
    halt().'
}

# The node syncs only a part of what a new queue is made of. This makes it an old one, all of which has reached the disk.
make_queue() {
  log="$home/made.log"
  # Else the node starts one as a daemon, which would outlive an install that is killed.
  epmd &
  names=$!
  /usr/lib/rabbitmq/bin/rabbitmq-server > "$log" 2>&1 &
  node=$!
  until grep -q 'completed with' "$log"; do
    kill -0 "$node" 2> /dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
  done
  # The script stops the node in order.
  kill -TERM "$node"
  wait "$node"
  kill "$names"
  sync -f "$home"
}

case "$what" in
  install)
    make_cookie
    [ $# -gt 2 ] || exit 0
    # shellcheck disable=SC2046 # three words
    configure $(free_ports) "$3"
    make_queue
    ;;
  serve)
    shift 2
    configure "$@"
    exec /usr/lib/rabbitmq/bin/rabbitmq-server
    ;;
esac
