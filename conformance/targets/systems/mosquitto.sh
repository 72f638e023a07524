#!/bin/sh
# mosquitto.sh DATA PORT [LINE…]: a separate mosquitto with its data in DATA. It listens on PORT of loopback. Each
# LINE is added to its configuration.
set -eu
data="$1"
port="$2"
shift 2
cat > "$data/mosquitto.conf" <<CONF
listener $port 127.0.0.1
allow_anonymous true
# As in the package: without this, nothing is ever stored.
persistence true
persistence_location $data/
# The default of 1000 makes mosquitto drop further messages for the receiver, and it confirms them all the same.
max_queued_messages 0
# Stay root: the directory under test belongs to root.
user root
log_dest stderr
$(printf '%s\n' "$@")
CONF
exec /usr/sbin/mosquitto -c "$data/mosquitto.conf"
