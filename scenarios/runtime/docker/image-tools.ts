/** A tool that faults use inside a container. It is also the name of its Debian package. */
export type ImageTool = 'strace' | 'libfaketime';

/** Tool that a fault needs in the image of every service, by the name of the fault. */
export const TOOLS_IN_IMAGE: Readonly<Record<string, ImageTool>> = {
  'kill-syscall': 'strace',
  'io-error': 'strace',
  tear: 'strace',
  clock: 'libfaketime',
};
