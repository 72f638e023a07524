import { readFileSync, realpathSync } from 'node:fs';
import { isAbsolute, relative } from 'node:path';
import type Dockerode from 'dockerode';
import { sha256 } from '../../conformance/certificate/evidence.js';
import type { Facts } from '../../conformance/certificate/facts.js';
import { commandsOf } from '../../conformance/certificate/target-files.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { findProgram } from '../../faults/programs.js';
import { connectEngine, engineAddress } from '../runtime/docker/engine.js';

/** The programs that a target's commands call and that lie outside its folder, as they are on this machine. */
export function programsOf(target: Target): Facts['programs'] {
  const names = new Set(commandsOf(target).map(([program = '']) => program));
  return [...names].sort().flatMap((name) => {
    if (name.includes('{dir}')) return [];
    const found = name === '{node}' ? process.execPath : isAbsolute(name) ? name : findProgram(name);
    if (found === undefined) return [];
    try {
      const path = realpathSync(found);
      if (!relative(target.dir, path).startsWith('..')) return [];
      return [{ name, path, sha256: sha256(readFileSync(path)) }];
    } catch {
      // What cannot be read cannot be started either; the runs will say so.
      return [];
    }
  });
}

/** The images in which a target's services run, by the names that the engine of this machine has for them. */
export async function imagesOf(names: readonly string[]): Promise<Facts['images']> {
  if (names.length === 0) return [];
  const engine: Dockerode = await connectEngine(engineAddress());
  const images: Facts['images'] = [];
  for (const name of [...names].sort()) {
    const { Id } = await engine.getImage(name).inspect();
    images.push({ name, sha256: Id.replace(/^sha256:/, '') });
  }
  return images;
}
