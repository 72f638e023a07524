import { spawn } from 'node:child_process';
import type Dockerode from 'dockerode';

/** One line of the output of a container engine that builds an image. */
interface BuildLine {
  stream?: string;
  error?: string;
}

/** Options of a build, as the container engine's API names them. */
export interface BuildOptions {
  tag: string;
  buildargs?: Record<string, string>;
  target?: string;
  labels?: Record<string, string>;
}

/** Returns whether the container engine has an image with this name. */
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
 * Builds the Dockerfile in `dir` with the container engine's built-in builder, which needs no network.
 * @throws Error with the last lines of the engine's output.
 */
export async function buildImage(
  engine: Dockerode,
  dir: string,
  { tag, buildargs = {}, target, labels = {} }: BuildOptions,
): Promise<void> {
  // Set the owner to 0, so that the image does not depend on the user who builds it.
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
