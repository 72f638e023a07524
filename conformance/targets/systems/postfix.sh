#!/bin/sh
# postfix.sh install DATA | serve DATA PORT SINK: a separate Postfix with its data below DATA. It accepts mail
# on PORT of loopback and relays all of it to SINK (host:port). It runs as root, because Postfix itself changes
# to its own users.
set -eu
home="$2/postfix"
case "$1" in
  install)
    mkdir -p "$home/config" "$home/queue" "$home/lib"
    chown postfix: "$home/lib"
    # Sync the directories that this script makes. Postfix syncs its files in them.
    sync "$2" "$home" "$home/queue"
    ;;
  serve)
    cat > "$home/config/main.cf" <<CF
compatibility_level = 3.6
queue_directory = $home/queue
data_directory = $home/lib
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
myhostname = gateway.plugpull.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [${4%:*}]:${4##*:}
smtp_host_lookup = native
# Without this, Postfix adds a missing Message-ID, Date or To to mail of local clients. A gateway must not
# change mail.
local_header_rewrite_clients =
alias_maps =
alias_database =
local_recipient_maps =
default_process_limit = 20
# Retry soon: a run takes only seconds.
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
transport_retry_time = 1s
smtp_destination_concurrency_failed_cohort_limit = 0
smtpd_client_connection_count_limit = 0
smtp_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
CF
    cat > "$home/config/master.cf" <<CF
127.0.0.1:$3 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
CF
    # Give stdout to the user postfix: the start checks the queue as this user, and fails if it cannot write a
    # finding to the log.
    [ -c /dev/stdout ] || chown postfix: /dev/stdout
    exec /usr/sbin/postfix -c "$home/config" start-fg
    ;;
esac
