import { homedir, userInfo } from 'node:os';
import { isAbsolute, join } from 'node:path';

/** User state directory of root. Services of the machine keep their state below `/var/lib`, too. */
const STATE_OF_ROOT = '/var/lib/plugpull';

/**
 * Returns the user state directories, best first: the one that XDG_STATE_HOME names, if it is set, and the usual one. The
 * kit keeps in them what must outlive every run and checkout of this user. None is in a checkout: a file there is a stranger's
 * input.
 */
export function userStateDirectories(): [string, ...string[]] {
  const { XDG_STATE_HOME: base } = process.env;
  const usual = process.geteuid?.() === 0 ? STATE_OF_ROOT : join(homeDirectory(), '.local/state/plugpull');
  // The specification of the XDG directories ignores relative paths.
  return base !== undefined && isAbsolute(base) ? [join(base, 'plugpull'), usual] : [usual];
}

/** Returns the home directory of the user of this process. HOME may still be that of the caller, as under sudo. */
export function homeDirectory(): string {
  try {
    return userInfo().homedir;
  } catch {
    // A container may run with a user id that has no entry.
    return homedir();
  }
}
