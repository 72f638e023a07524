import type { Availability, Fault } from '../../../faults/fault.js';
import type { Runtime } from '../runtime.js';
import { ContainerDeployment } from './container-deployment.js';
import { localMembers } from './container-members.js';
import { connectEngine, engineAddress, engineAvailability } from './engine.js';
import { podImageOf, type TargetImages, targetImages } from './target-images.js';

/** Faults whose tool has to be in the image, with the Debian package that brings it. */
const TOOLS_IN_IMAGE: Readonly<Record<string, string>> = {
  'kill-syscall': 'strace',
  'io-error': 'strace',
  tear: 'strace',
  clock: 'libfaketime',
};

/** Services as containers on the engine of this machine. */
export const dockerRuntime: Runtime = {
  name: 'docker',
  available: () => engineAvailability(engineAddress()),
  async prepare(target, say) {
    const address = engineAddress();
    const engine = await connectEngine(address);
    const images = await targetImages(engine, target, say);
    const podImage = await podImageOf(engine, say);
    return {
      name: 'docker',
      placesOf: images.placesOf,
      images: [...new Set(Object.keys(target.services).map((service) => images.imageOf(service)))],
      offers: (fault) => toolsFor(fault, images),
      deploy: (plan) =>
        new ContainerDeployment(plan, {
          engine,
          address,
          images,
          podImage,
          targetDir: target.dir,
          membersOf: localMembers,
        }),
    };
  },
};

function toolsFor({ name }: Fault, { foreign }: TargetImages): Availability {
  const tool = TOOLS_IN_IMAGE[name];
  if (tool === undefined || foreign.length === 0) return { available: true };
  return {
    available: false,
    why: `under --runtime docker it needs ${tool} in the image, and ${foreign.join(', ')} may not have it`,
    remedy: 'use --runtime process for this fault',
  };
}
