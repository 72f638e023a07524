import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Returns the folder of package.json. Paths of files that are not compiled start there. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** Path of the target file of the default target, the synchronous reference implementation. */
export const REFERENCE_TARGET = join(packageRoot(), 'conformance/targets/reference.json');

/** Path of the published JSON Schema of target files. */
export const TARGET_SCHEMA = join(packageRoot(), 'conformance/target-file/target.schema.json');
