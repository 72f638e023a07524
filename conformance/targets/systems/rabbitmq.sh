#!/bin/sh
# rabbitmq.sh install DATA | serve DATA PORT EPMD_PORT DIST_PORT QUEUE_TYPE: a RabbitMQ node of its own below DATA, with one
# durable queue.
set -eu
home="$2/rabbitmq"
if [ "$1" = install ]; then
  mkdir "$home"
  # Erlang makes the cookie at its first start and does not sync it; after a power cut it is empty, and no node starts again.
  head -c 15 /dev/urandom | base64 | tr '+/' 'AB' > "$home/.erlang.cookie"
  chmod 400 "$home/.erlang.cookie"
  sync "$home/.erlang.cookie" "$home" "$2"
  exit
fi
cat > "$home/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$3
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
      "arguments": { "x-queue-type": "$6" }
    }
  ]
}
JSON
echo '[].' > "$home/enabled_plugins"
export HOME="$home" \
  ERL_EPMD_PORT="$4" ERL_EPMD_ADDRESS=127.0.0.1 \
  RABBITMQ_NODENAME=plugpull@localhost RABBITMQ_DIST_PORT="$5" \
  RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
  RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_LOGS=- \
  RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
exec /usr/lib/rabbitmq/bin/rabbitmq-server
