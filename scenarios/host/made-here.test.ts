import { chmodSync, chownSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { noteMadeHere, userStateDirectory, whyNotMadeHere } from './made-here.js';

const SHA = 'ab'.repeat(32);
const OTHER = 'cd'.repeat(32);

function newState(t: { teardown(remove: () => void): void }): string {
  const base = mkdtempSync(join(tmpdir(), 'plugpull-made-here-'));
  t.teardown(() => rmSync(base, { recursive: true, force: true }));
  process.env.XDG_STATE_HOME = base;
  return join(base, 'plugpull');
}

t.test('only a bundle that was noted counts as made here', async (t) => {
  newState(t);
  t.match(whyNotMadeHere(SHA), /not made on this machine by this user/, 'there is no list yet');
  noteMadeHere(SHA, '/x/bundle.tar.gz');
  noteMadeHere(SHA, '/x/bundle.tar.gz');
  t.equal(whyNotMadeHere(SHA), undefined);
  t.match(whyNotMadeHere(OTHER), /not made on this machine by this user/);
  t.match(whyNotMadeHere('../bundles'), /not made on this machine/, 'a digest is no path');
});

t.test('a list that others can write to is not believed and not written', async (t) => {
  const state = newState(t);
  noteMadeHere(SHA, 'a');
  for (const path of [state, join(state, 'bundles')]) {
    chmodSync(path, 0o777);
    t.match(whyNotMadeHere(SHA), /can be written to by others \(chmod go-w/);
    t.throws(() => noteMadeHere(OTHER, 'b'), /can be written to by others/);
    chmodSync(path, 0o700);
  }
  t.equal(whyNotMadeHere(SHA), undefined);
  symlinkSync('/etc/passwd', join(state, 'bundles', OTHER));
  t.match(whyNotMadeHere(OTHER), /is not a file of this user/);
});

t.test(
  'a list or an entry of another user is not believed',
  { skip: process.getuid?.() !== 0 },
  async (t) => {
    const state = newState(t);
    noteMadeHere(SHA, 'a');
    chownSync(join(state, 'bundles', SHA), 65534, 65534);
    t.match(whyNotMadeHere(SHA), /is not a file of this user/);
    noteMadeHere(OTHER, 'b');
    chownSync(join(state, 'bundles'), 65534, 65534);
    t.match(whyNotMadeHere(OTHER), /belongs to another user/);
  },
);

t.test('the list has an upper bound', async (t) => {
  const state = newState(t);
  noteMadeHere(SHA, 'a');
  for (let n = 0; n < 2100; n++) writeFileSync(join(state, 'bundles', n.toString(16).padStart(64, '0')), '');
  noteMadeHere(OTHER, 'b');
  t.equal(readdirSync(join(state, 'bundles')).length, 2000);
  t.equal(whyNotMadeHere(OTHER), undefined, 'the newest stays');
});

t.test('a relative XDG_STATE_HOME, which a checkout could contain, is ignored', async (t) => {
  newState(t);
  process.env.XDG_STATE_HOME = '.state';
  t.match(userStateDirectory(), /^\/(var\/lib|.*\/\.local\/state)\/plugpull$/);
});
