import t from 'tap';
import { limitEntry } from './entry-modes.js';

t.test('an unpacked file has no special bits, and only its user may write to it', async (t) => {
  const modeOf = (type: string, mode?: number) => {
    const entry = { type, mode };
    t.equal(limitEntry('name', entry), undefined);
    return entry.mode;
  };
  t.equal(modeOf('File', 0o7777), 0o755);
  t.equal(modeOf('File', 0o4711), 0o711);
  t.equal(modeOf('OldFile', 0), 0o600);
  t.equal(modeOf('File'), 0o600);
  t.equal(modeOf('Directory', 0o1777), 0o700);
});

t.test('links, devices and pipes are refused by name', async (t) => {
  for (const type of ['SymbolicLink', 'Link', 'CharacterDevice', 'BlockDevice', 'FIFO', 'Unsupported'])
    t.match(limitEntry('a/b', { type, mode: 0o644 }), new RegExp(`^a/b is an entry of the type ${type}, `));
});
