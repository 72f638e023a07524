#!/bin/sh
# exim.sh install DATA | serve DATA PORT SINK [ARGUMENT…]: a separate Exim with its spool below DATA. It accepts mail
# on PORT of loopback and relays all of it to SINK (host:port). ARGUMENTs replace those of a server in the foreground.
# It runs as root, because Exim itself changes to its own user.
set -eu
spool="$2/exim"
case "$1" in
  install)
    mkdir "$spool"
    # Exim makes the rest of the spool. It syncs its files and the directories in which it makes or renames them.
    sync "$2" "$spool"
    ;;
  serve)
    shift
    exec sh "$(dirname "$0")/private-root.sh" exim Debian-exim sh "$0" inside "$@"
    ;;
  inside)
    command -v exim4 > /dev/null || { echo "exim4: not found; the command systems of the kit gets it: systems exim" >&2; exit 1; }
    chown Debian-exim: "$spool"
    # Remove the hints, such as the time of the next attempt: Exim does not sync them, and does not need them. After
    # some power cuts with old hints, every delivery waited for the lock of these files.
    rm -rf "$spool/db"
    mkdir -p /run/exim4 /etc/exim4
    chown Debian-exim: /run/exim4
    # Use the default path: Exim gives up root when another user, such as its own, names another path.
    cat > /etc/exim4/exim4.conf <<CONF
primary_hostname = gateway.plugpull.test
spool_directory = $spool
log_file_path = /run/exim4/%slog
pid_file_path = /run/exim4/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = $3
acl_smtp_rcpt = accept_all
acl_smtp_data = accept_all
tls_advertise_hosts =
chunking_advertise_hosts =
keep_environment =
message_size_limit = 0
# By default Exim only stores the eleventh and later messages of a connection, and the queue runner delivers them.
smtp_accept_queue_per_connection = 0
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
rfc1413_query_timeout = 0s

begin acl
accept_all:
  accept

begin routers
smarthost:
  driver = manualroute
  route_list = * ${4%:*} byname
  self = send
  transport = sink

begin transports
sink:
  driver = smtp
  port = ${4##*:}
  allow_localhost

begin retry
# Retry soon: a run takes only seconds.
* * F,2h,1s
CONF
    shift 4
    [ $# -gt 0 ] || set -- -bdf -q1s
    exec exim4 "$@"
    ;;
esac
