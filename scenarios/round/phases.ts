/**
 * Phases of a run of rounds; see `PhaseClock`.
 * - `set-up`: the disk, the install command and the first start.
 * - `workload`: messages are submitted and delivered, and no fault is active.
 * - `faults`: a fault is injected and healed.
 * - `recoveries`: from the restart after a fault until every service is ready.
 * - `inspections`: the target's own `verify` command.
 * - `drain`: the wait for messages that are confirmed and not delivered.
 * - `stop`: the end of the target's processes.
 * - `exploration`: crash states are explored, after the rounds of a gate.
 * - `evaluation`: the checkers, the evidence and the bundle.
 */
export type RoundPhase =
  | 'set-up'
  | 'workload'
  | 'faults'
  | 'recoveries'
  | 'inspections'
  | 'drain'
  | 'stop'
  | 'exploration'
  | 'evaluation';
