import { runTool } from './mounts.js';

/** Copies a file without giving its holes room; where the filesystem can, blocks are shared and nothing is copied. */
export function copySparse(from: string, to: string): void {
  runTool('cp', ['--sparse=always', '--reflink=auto', from, to]);
}
