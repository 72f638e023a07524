import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of package.json: files that are not compiled are found from there. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** Definition of the reference implementation: what is tested when no target is named. */
export const REFERENCE_TARGET = join(packageRoot(), 'conformance/targets/reference.json');

/** The published JSON Schema of target definitions. */
export const TARGET_SCHEMA = join(packageRoot(), 'conformance/target-file/target.schema.json');
