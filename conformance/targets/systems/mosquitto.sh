#!/bin/sh
# mosquitto.sh DATA PORT: a separate mosquitto with its data in DATA. It listens on PORT of loopback.
set -eu
cat > "$1/mosquitto.conf" <<CONF
listener $2 127.0.0.1
allow_anonymous true
# As in the package: without this, nothing is ever stored.
persistence true
persistence_location $1/
# The default of 1000 makes mosquitto drop further messages for the receiver, and it confirms them all the same.
max_queued_messages 0
# Stay root: the directory under test belongs to root.
user root
log_dest stderr
CONF
exec /usr/sbin/mosquitto -c "$1/mosquitto.conf"
