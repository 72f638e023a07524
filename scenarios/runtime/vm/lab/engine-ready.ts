import { until } from '../../../../faults/waiting.js';
import { engineAvailability } from '../../docker/engine.js';

const TIMEOUT_MS = 120_000;

/** Waits for the engine behind a port of loopback. */
export async function waitForEngine(port: number): Promise<void> {
  const address = `tcp://127.0.0.1:${port}`;
  const up = await until(
    async () => (await engineAvailability(address)).available,
    TIMEOUT_MS,
    undefined,
    200,
  );
  if (!up) throw new Error(`the engine of the lab VM did not answer in ${TIMEOUT_MS} ms`);
}
