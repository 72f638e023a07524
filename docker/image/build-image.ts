import { spawn } from 'node:child_process';
import type Dockerode from 'dockerode';

/** One line of what an engine says while it builds. */
interface BuildLine {
  stream?: string;
  error?: string;
}

export interface BuildOptions {
  tag: string;
  buildargs?: Record<string, string>;
  target?: string;
  labels?: Record<string, string>;
}

/** Whether the engine has an image of that name. */
export async function hasImage(engine: Dockerode, name: string): Promise<boolean> {
  try {
    await engine.getImage(name).inspect();
    return true;
  } catch (error) {
    if (error instanceof Error && 'statusCode' in error && error.statusCode === 404) return false;
    throw error;
  }
}

/**
 * Builds the Dockerfile in `dir` with the engine's own builder, which needs nothing from the network.
 * @throws Error with the engine's last lines.
 */
export async function buildImage(
  engine: Dockerode,
  dir: string,
  { tag, buildargs = {}, target, labels = {} }: BuildOptions,
): Promise<void> {
  // Numbers for owners: an image made by one user is the same as one made by another.
  const tar = spawn('tar', ['-C', dir, '--owner=0', '--group=0', '--sort=name', '-cf', '-', '.'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const stream = await engine.buildImage(tar.stdout, {
    t: tag,
    buildargs,
    labels,
    rm: true,
    forcerm: true,
    ...(target === undefined ? {} : { target }),
  });
  const buildLines = await new Promise<BuildLine[]>((resolve, reject) => {
    engine.modem.followProgress(stream, (error, lines: BuildLine[]) =>
      error ? reject(error) : resolve(lines),
    );
  });
  const failed = buildLines.find(({ error }) => error !== undefined);
  if (failed === undefined) return;
  const lastLines = buildLines.flatMap(({ stream: text }) => text?.trim() || []).slice(-3);
  throw new Error(`building ${tag}: ${[...lastLines, failed.error].join(' | ')}`);
}
