#!/bin/sh
# as-user.sh USER command…: runs a command as another user when it is started by root, else as it is.
# In place of this shell, so that signals reach the command itself.
user="$1"
shift
[ "$(id -u)" = 0 ] || exec "$@"
exec setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"
