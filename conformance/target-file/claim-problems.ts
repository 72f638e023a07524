import type { ProtocolName } from '../protocols/protocol-names.js';
import type { FaultName, TargetFile } from './definition.js';

/** Faults that damage files which the target file must name, and the key that names them. */
const FILES_OF_FAULTS: Readonly<Partial<Record<FaultName, 'index' | 'messages'>>> = {
  'index-loss': 'index',
  'data-rot': 'messages',
};

/** Protocols in which the target calls the kit's receiver, so that a command or variable must contain its address. */
export const CALLS_THE_RECEIVER: readonly ProtocolName[] = ['smtp'];

/** Returns the claims of a target that its other keys do not support, each as `key path: what was expected`. */
export function claimProblems({ guarantee, files, protocol, services, submit }: TargetFile): string[] {
  const problems = guarantee.faults.flatMap((fault, index) => {
    const key = FILES_OF_FAULTS[fault];
    if (key === undefined || (files?.[key] ?? []).length > 0) return [];
    return [
      `guarantee.faults.${index}: ${fault} damages the files that files.${key} names, expected at least one glob there`,
    ];
  });
  const words = Object.values(services).flatMap(({ command, env }) => [
    ...command,
    ...Object.values(env ?? {}),
  ]);
  if (CALLS_THE_RECEIVER.includes(protocol) && !words.some((word) => word.includes('{sink}')))
    problems.push(
      `services: expected {sink} in the command or env of a service: a target of the protocol ${protocol} delivers to it`,
    );
  // The receiver has a connection to each port, and deliveries over several connections have no order.
  if (guarantee.order !== undefined && !CALLS_THE_RECEIVER.includes(protocol) && (submit?.length ?? 1) > 1)
    problems.push(
      `guarantee.order: expected one port in submit: over ${protocol} the kit receives from each port, and messages of several connections have no order`,
    );
  return problems;
}
