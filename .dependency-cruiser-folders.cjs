// The same fences, and none between folders either: tests are left out, because a test may import anything.
const { forbidden, options } = require('./.dependency-cruiser.cjs');

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...forbidden,
    {
      name: 'no-folder-cycles',
      comment: 'Two folders that import each other cannot be read one after the other.',
      severity: 'error',
      scope: 'folder',
      from: {},
      to: { circular: true },
    },
  ],
  options: { ...options, exclude: { path: '(\\.test\\.ts$|/fixtures/)' } },
};
