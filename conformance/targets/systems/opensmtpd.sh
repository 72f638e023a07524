#!/bin/sh
# opensmtpd.sh install DATA | serve DATA PORT SINK: a separate OpenSMTPD with its spool below DATA. It accepts mail
# on PORT of loopback and relays all of it to SINK (host:port). It runs as root, because smtpd itself changes to
# its own users.
set -eu
spool="$2/smtpd"
case "$1" in
  install)
    mkdir -m 711 "$spool"
    # Sync the directory that this script makes. smtpd makes the rest.
    sync "$2" "$spool"
    ;;
  serve)
    shift
    exec sh "$(dirname "$0")/private-root.sh" opensmtpd opensmtpd,opensmtpq sh "$0" inside "$@"
    ;;
  inside)
    command -v smtpd > /dev/null || { echo "smtpd: not found; the command systems of the kit gets it: systems opensmtpd" >&2; exit 1; }
    # The path of the spool and the home of the user are compiled in. A container may have no right to mount.
    mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
    if ! mount --bind "$spool" /var/spool/smtpd 2> /dev/null; then
      rm -r /var/spool/smtpd
      ln -s "$spool" /var/spool/smtpd
    fi
    cat > /etc/smtpd.conf <<CONF
listen on 127.0.0.1 port $3 hostname gateway.plugpull.test
smtp max-message-size 64M
action "relay" relay host smtp://$4
match from local for any action "relay"
CONF
    # smtpd waits at least 400 s before it tries a refused message again: make it try every second.
    while sleep 1; do smtpctl schedule all; done > /dev/null 2>&1 &
    exec smtpd -d
    ;;
esac
