import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { writeAllOrNone } from './write-files.js';

t.test('a failure in the middle leaves every folder as it was', async (t) => {
  const dir = t.testdir({ old: 'before', blocked: 'a file where a folder is needed' });
  const files = [
    { path: join(dir, 'new/deep/a'), text: 'a' },
    { path: join(dir, 'old'), text: 'after' },
    { path: join(dir, 'blocked/b'), text: 'b' },
  ];
  t.throws(() => writeAllOrNone(files, true, '--out x'), /--out x: .*nothing was written/);
  t.same(readdirSync(dir).sort(), ['blocked', 'old']);
  t.equal(readFileSync(join(dir, 'old'), 'utf8'), 'before');
});

t.test('a failure after some files have their names takes these names back', async (t) => {
  const dir = t.testdir({ old: 'before', folder: { inside: '' } });
  const files = [
    { path: join(dir, 'a'), text: 'a' },
    { path: join(dir, 'old'), text: 'after' },
    { path: join(dir, 'folder'), text: 'a folder cannot be replaced' },
  ];
  t.throws(() => writeAllOrNone(files, true, '--out x'), /nothing was written/);
  t.same(readdirSync(dir).sort(), ['folder', 'old']);
  t.equal(readFileSync(join(dir, 'old'), 'utf8'), 'before');
});

t.test('with force files are replaced, links are not followed, and nothing else is left', async (t) => {
  const dir = t.testdir({ a: 'before', elsewhere: 'untouched' });
  mkdirSync(join(dir, 'out'));
  writeFileSync(join(dir, 'out/a'), 'before');
  symlinkSync(join(dir, 'elsewhere'), join(dir, 'out/link'));
  const files = ['a', 'b'].map((name) => ({ path: join(dir, 'out', name), text: name }));
  t.same(
    writeAllOrNone(files, true, '--out x'),
    files.map(({ path }) => path),
  );
  t.same(readdirSync(join(dir, 'out')).sort(), ['a', 'b', 'link']);
  t.same(writeAllOrNone(files, false, '--out x'), [], 'the same content is no conflict');
  const link = [{ path: join(dir, 'out/link'), text: 'x' }];
  t.throws(() => writeAllOrNone(link, false, '--out x'), /expected no file of this name/);
  t.throws(() => writeAllOrNone(link, true, '--out x'), /nothing was written/);
  t.equal(readFileSync(join(dir, 'elsewhere'), 'utf8'), 'untouched');
  t.ok(existsSync(join(dir, 'out/link')));
});
