#!/usr/bin/env node
// Builds both images and prints their names as `PLUGPULL_…_IMAGE=name` lines, which `docker-compose --env-file`
// reads.
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import Dockerode from 'dockerode';
import { kitImage, referenceImage } from './image/images.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const options = {
  engine: new Dockerode(),
  root,
  workDir: resolve(process.env.PLUGPULL_STATE ?? join(root, '.plugpull')),
  say: (line: string) => void process.stderr.write(`plugpull images: ${line}\n`),
};
try {
  process.stdout.write(`PLUGPULL_REFERENCE_IMAGE=${await referenceImage(options)}\n`);
  process.stdout.write(`PLUGPULL_KIT_IMAGE=${await kitImage(options)}\n`);
} catch (error) {
  process.stderr.write(`plugpull images: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 4;
}
