#!/bin/sh
# private-root.sh NAME USERS command…: runs a command as root in a mount namespace of its own, where
#   - /etc, /run, /var/lib and /var/spool are private: what is written there is gone when the command ends,
#   - the packages that `plugpull systems` has unpacked for NAME are in /usr,
#   - each of the comma-separated USERS exists.
# A disk that is mounted below one of these directories is not visible to the command.
# Mail servers of Debian cannot be installed beside each other, and have paths that no option changes. A container may
# have no right to mount. Its files are private already, so the command then runs without a namespace.
set -eu
name="$1"
users="$2"
shift 2
unshare --mount true 2> /dev/null || exec "$@"
if [ "${PLUGPULL_PRIVATE_ROOT:-}" != "$name" ]; then
  export PLUGPULL_PRIVATE_ROOT="$name"
  exec unshare --mount --propagation private -- sh "$0" "$name" "$users" "$@"
fi

unpacked="${PLUGPULL_PACKAGES:-/var/cache/plugpull/packages}/$name"
[ ! -d "$unpacked/usr" ] || mount -t overlay -o "lowerdir=$unpacked/usr:/usr" overlay /usr
# The layers are in memory, and not on the disk under test.
mount -t tmpfs -o mode=755 tmpfs /run
for path in etc var/spool var/lib; do
  upper="/run/private-root/upper/$path"
  work="/run/private-root/work/$path"
  mkdir -p "$upper" "$work"
  mount -t overlay -o "lowerdir=/$path,upperdir=$upper,workdir=$work" overlay "/$path"
done
id=64100
for user in $(echo "$users" | tr , ' '); do
  id=$((id + 1))
  if ! grep -q "^$user:" /etc/passwd; then
    echo "$user:x:$id:$id::/nonexistent:/usr/sbin/nologin" >> /etc/passwd
    echo "$user:x:$id:" >> /etc/group
  fi
done
exec "$@"
