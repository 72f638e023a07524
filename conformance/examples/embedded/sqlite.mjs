// A store in SQLite, for front.mjs. The options are pragmas, for example `journal_mode=WAL` and `synchronous=FULL`.
// SQLite is the library of the system (Debian: libsqlite3-0).
import { join } from 'node:path';
import koffi from 'koffi';

const library = koffi.load('libsqlite3.so.0');
const call = {
  open: library.func('int sqlite3_open(const char *path, _Out_ void **database)'),
  message: library.func('const char *sqlite3_errmsg(void *database)'),
  prepare: library.func(
    'int sqlite3_prepare_v2(void *database, const char *sql, int size, _Out_ void **statement, void *tail)',
  ),
  bindText: library.func(
    'int sqlite3_bind_text(void *statement, int at, const char *text, int size, intptr_t free)',
  ),
  bindBlob: library.func(
    'int sqlite3_bind_blob(void *statement, int at, const uint8_t *bytes, int size, intptr_t free)',
  ),
  step: library.func('int sqlite3_step(void *statement)'),
  text: library.func('const char *sqlite3_column_text(void *statement, int column)'),
  blob: library.func('void *sqlite3_column_blob(void *statement, int column)'),
  size: library.func('int sqlite3_column_bytes(void *statement, int column)'),
  finalize: library.func('int sqlite3_finalize(void *statement)'),
};
const [ROW, DONE] = [100, 101];
/** Makes SQLite copy a bound value. */
const TRANSIENT = -1;

/** Opens the database and returns a function that runs a statement and returns `read` of each row. */
function connect(path) {
  const database = output((at) => {
    if (call.open(path, at) !== 0) throw new Error(`${path}: ${call.message(at[0])}`);
  });
  return (sql, values = [], read = () => {}) => {
    const check = (code) => {
      if (code !== 0) throw new Error(`${sql}: ${call.message(database)}`);
    };
    const statement = output((at) => check(call.prepare(database, sql, -1, at, null)));
    try {
      for (const [index, value] of values.entries()) {
        const bind = typeof value === 'string' ? call.bindText : call.bindBlob;
        check(bind(statement, index + 1, value, Buffer.byteLength(value), TRANSIENT));
      }
      const rows = [];
      for (;;) {
        const code = call.step(statement);
        if (code === DONE) return rows;
        if (code !== ROW) check(code);
        rows.push(read(statement));
      }
    } finally {
      call.finalize(statement);
    }
  };
}

/** Returns the pointer that a C function stores. */
function output(fill) {
  const at = [null];
  fill(at);
  return at[0];
}

const readText = (statement) => call.text(statement, 0);
const readBlob = (statement) => {
  const type = koffi.array('uint8_t', call.size(statement, 0), 'Typed');
  return Buffer.from(koffi.decode(call.blob(statement, 0), type));
};

export function open(directory, pragmas) {
  const run = connect(join(directory, 'queue.db'));
  for (const pragma of pragmas) run(`PRAGMA ${pragma}`);
  run('CREATE TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, body BLOB NOT NULL)');
  return {
    put: (id, bytes) => run('INSERT INTO messages VALUES (?, ?)', [id, bytes]),
    get: (id) => run('SELECT body FROM messages WHERE id = ?', [id], readBlob)[0],
    remove: (id) => run('DELETE FROM messages WHERE id = ?', [id]),
    ids: () => run('SELECT id FROM messages ORDER BY rowid', [], readText),
  };
}
