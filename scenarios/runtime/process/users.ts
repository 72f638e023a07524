import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { KitError } from '../../../conformance/errors.js';
import { findProgram } from '../../../faults/programs.js';

/** A user of this machine as which a service runs. */
export interface UserAccount {
  uid: number;
  gid: number;
  groups: readonly number[];
  /** Command that runs another one as this user; empty when the kit itself is this user. */
  command: readonly string[];
  /** The variables that name the user and its home directory. */
  env: Readonly<Record<string, string>>;
}

/**
 * Finds the account of a user.
 * @param key key path of the name in the target file.
 * @param user name or number of the user.
 * @throws KitError bad-target when the user is unknown, or when the kit cannot become this user.
 */
export function findAccount(key: string, user: string): UserAccount {
  const bad = (message: string) => new KitError('bad-target', `${key}: ${message}`);
  const [name = '', , uidText, gidText, , home = '/'] = output('getent', ['passwd', user]).split(':');
  if (uidText === undefined || gidText === undefined)
    throw bad(`expected a user of this machine, found ${user}`);
  const [uid, gid] = [Number(uidText), Number(gidText)];
  const groups = output('id', ['-G', name]).split(' ').map(Number);
  const env = { HOME: home, USER: name, LOGNAME: name };
  const own = process.getuid?.();
  if (own === uid) return { uid, gid, groups, command: [], env };
  if (own !== 0) throw bad(`the kit must run as root to run a service as ${user}, it runs as user ${own}`);
  if (findProgram('setpriv') === undefined)
    throw bad(`the program setpriv is needed to run a service as ${user}: apt-get install util-linux`);
  const ids = ['--reuid', uidText, '--regid', gidText, '--groups', groups.join(',')];
  return { uid, gid, groups, command: ['setpriv', ...ids, '--'], env };
}

/**
 * Checks that a user may enter a directory of the kit.
 * @throws KitError bad-target that names the first directory on the way that the user may not enter.
 */
export function requireReachable(key: string, user: string, account: UserAccount, path: string): void {
  const way: string[] = [];
  for (let dir = path; ; dir = dirname(dir)) {
    way.unshift(dir);
    if (dir === dirname(dir)) break;
  }
  const closed = way.find((dir) => !mayEnter(account, dir));
  if (closed === undefined) return;
  throw new KitError(
    'bad-target',
    `${key}: ${user} may not enter ${closed}, on the way to ${path}: expected directories that this user may enter (chmod o+x, or set PLUGPULL_STATE to another place)`,
  );
}

function mayEnter({ uid, gid, groups }: UserAccount, dir: string): boolean {
  if (uid === 0) return true;
  const { mode, uid: owner, gid: group } = statSync(dir);
  if (owner === uid) return (mode & 0o100) !== 0;
  return (mode & (gid === group || groups.includes(group) ? 0o010 : 0o001)) !== 0;
}

function output(program: string, args: readonly string[]): string {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : '';
}
