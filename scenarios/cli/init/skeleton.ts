import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { starterTarget } from '../../../conformance/target-file/starter.js';
import { packageRoot } from '../../host/version.js';
import type { Answers, Form, Language } from './answers.js';

/** A file that `init` writes, below the folder of the target file. */
export interface InitFile {
  path: string;
  text: string;
}

/** The skeleton of one language: files of `conformance/examples`, which the kit's own tests measure. */
interface Skeleton {
  title: string;
  /** Program that runs or compiles it, and the Debian package that has the program. */
  program: string;
  debianPackage: string;
  /** Files of every form, then those that only the form with several services has. */
  files: readonly string[];
  frontFiles: readonly string[];
}

export const SKELETONS: Readonly<Record<Exclude<Language, 'none'>, Skeleton>> = {
  python: {
    title: 'Python',
    program: 'python3',
    debianPackage: 'python3',
    files: ['queue.py'],
    frontFiles: ['front.py'],
  },
  javascript: {
    title: 'JavaScript',
    program: 'node',
    debianPackage: 'nodejs',
    files: ['queue.mjs'],
    frontFiles: ['front.mjs'],
  },
  go: {
    title: 'Go',
    program: 'go',
    debianPackage: 'golang-go',
    files: ['queue.go', 'go.mod'],
    frontFiles: ['front/front.go'],
  },
  rust: {
    title: 'Rust',
    program: 'rustc',
    debianPackage: 'rustc',
    files: ['queue.rs'],
    frontFiles: ['front.rs'],
  },
  c: { title: 'C', program: 'cc', debianPackage: 'gcc', files: ['queue.c'], frontFiles: ['front.c'] },
};

/** Target file of each form, in the folder of an example. */
const TARGET_FILES: Readonly<Record<Form, string>> = { one: 'target.json', several: 'two-services.json' };

/**
 * Returns the target file, named after the queue, and the skeleton if the language has one.
 * @param schema location of the JSON Schema, as it is written into the target file.
 */
export function targetAndSkeleton(answers: Answers, schema: string): InitFile[] {
  const { name, protocol, language, services } = answers;
  const path = `${name}.json`;
  if (language === 'none') {
    const definition = starterTarget(name, protocol, services);
    return [{ path, text: `${JSON.stringify({ $schema: schema, ...definition }, undefined, 2)}\n` }];
  }
  const folder = join(packageRoot(), 'conformance/examples', language);
  const read = (file: string) => readFileSync(join(folder, file), 'utf8');
  const { files, frontFiles } = SKELETONS[language];
  return [
    // The text is kept, because its layout is made for readers.
    {
      path,
      text: read(TARGET_FILES[services])
        .replace(/"\$schema": ".*?"/, () => `"$schema": ${JSON.stringify(schema)}`)
        .replace(/"name": ".*?"/, () => `"name": ${JSON.stringify(name)}`),
    },
    ...[...files, ...(services === 'several' ? frontFiles : [])].map((file) => ({
      path: file,
      text: read(file),
    })),
  ];
}
