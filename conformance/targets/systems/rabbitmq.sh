#!/bin/sh
# rabbitmq.sh install DATA [QUEUE_TYPE] | serve DATA PORT EPMD_PORT DIST_PORT QUEUE_TYPE: a separate RabbitMQ
# node with its data below DATA and one durable queue. An install with a type also creates the queue and syncs
# all its files.
set -eu
what="$1"
data="$2"
home="$data/rabbitmq"

# Make the cookie here. Erlang creates it at its first start without a sync: after a power cut it is empty, and
# the node does not start again.
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
  # The hash is that of guest's default password. The user guest may connect from loopback only.
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

# Prints three free ports for the install. It uses Erlang, which exists wherever RabbitMQ does.
free_ports() {
  HOME="$home" erl -noinput -eval '
    Probes = [element(2, gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}])) || _ <- [1, 2, 3]],
    [io:format("~b ", [element(2, inet:port(Probe))]) || Probe <- Probes],
    halt().'
}

# Creates the queue and syncs all its files. The node itself syncs only a part of the files of a new queue.
make_queue() {
  log="$home/made.log"
  # Start epmd here: the node would start it as a daemon, which would survive an install that is killed.
  epmd &
  names=$!
  /usr/lib/rabbitmq/bin/rabbitmq-server > "$log" 2>&1 &
  node=$!
  until grep -q 'completed with' "$log"; do
    kill -0 "$node" 2> /dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
  done
  # rabbitmq-server stops the node in order on SIGTERM.
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
