#!/bin/sh
# as-user.sh USER command…: runs a command as USER if it is started by root, otherwise as the current user.
# The command replaces this shell (exec), so that signals reach the command itself.
user="$1"
shift
[ "$(id -u)" = 0 ] || exec "$@"
exec setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"
