#!/bin/sh
# nats.sh DATA PORT: a separate NATS server with JetStream, which stores its data below DATA. It listens on PORT
# of loopback.
set -eu
cat > "$1/nats.conf" <<CONF
listen: 127.0.0.1:$2
# The default of 1 MB refuses the large messages of the workload.
max_payload: 8MB
jetstream { store_dir: "$1/nats" }
CONF
exec /usr/sbin/nats-server -c "$1/nats.conf"
