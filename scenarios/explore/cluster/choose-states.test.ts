import t from 'tap';
import { CrashModel } from '../../../faults/write-log/model.js';
import { seeded } from '../../host/random.js';
import { formatClusterState } from './address.js';
import { type ChosenState, chooseStates, hasBegunMore, type StateSpace, spread } from './choose-states.js';

/** Makes the model of a log: `w` is a write of three sectors, `f` a flush. */
function model(log: string): CrashModel {
  return new CrashModel(
    [...log].map((letter, index) => ({
      index,
      ...{ lengthBytes: letter === 'w' ? 3 * 512 : 0, flush: letter === 'f', fua: false },
    })) as unknown as ConstructorParameters<typeof CrashModel>[0],
  );
}

const SPACE: StateSpace = {
  nodes: [
    { name: 'a', model: model('wwfwwwfww') },
    { name: 'b', model: model('wwwwwwwww') },
  ],
  instants: Array.from({ length: 9 }, (_, at) => ({ lengths: [at, at], hasCopies: at % 4 === 0 })),
  from: 2,
  mayLackOne: true,
};

function take(space: StateSpace, count: number, seed = 1): ChosenState[] {
  const chosen: ChosenState[] = [];
  for (const one of chooseStates(space, seeded(seed))) {
    chosen.push(one);
    if (chosen.length === count) break;
  }
  return chosen;
}

t.test('every chosen state is one that a failure at its instant can leave', async (t) => {
  for (const { family, state } of take(SPACE, 400)) {
    const instant = SPACE.instants[state.instant];
    t.ok(state.instant >= SPACE.from, `${family}: something is at risk`);
    for (const [index, { name, model: ofNode }] of SPACE.nodes.entries()) {
      const disk = state.nodes.get(name);
      if (disk === 'live') t.ok(instant?.hasCopies, `${family}: there is a copy of the files`);
      else if (disk === undefined) t.fail(`${family}: node ${name} has no state`);
      else {
        t.equal(disk.prefix, instant?.lengths[index]);
        t.equal(ofNode.whyImpossible(disk), undefined, `${family}: ${formatClusterState(state)}`);
      }
    }
  }
});

t.test('a short run reaches every family, several instants and each node', async (t) => {
  const chosen = take(SPACE, 40);
  t.equal(new Set(chosen.map(({ family }) => family)).size, 9);
  t.ok(new Set(chosen.map(({ state }) => state.instant)).size >= 5);
  t.same(new Set(chosen.flatMap(({ state }) => state.away ?? [])), new Set(['a', 'b']));
  const cut = chosen.flatMap(({ family, state }) =>
    family === 'one-cut' ? [...state.nodes].filter(([, disk]) => disk !== 'live').map(([name]) => name) : [],
  );
  t.same(new Set(cut), new Set(['a', 'b']));
});

t.test('the same seed gives the same states, and another one others', async (t) => {
  const addresses = (seed: number) => take(SPACE, 60, seed).map(({ state }) => formatClusterState(state));
  t.same(addresses(5), addresses(5));
  t.notSame(addresses(5), addresses(6));
});

t.test('no machine stays off unless the cluster promises to serve without one', async (t) => {
  const chosen = take({ ...SPACE, mayLackOne: false }, 60);
  t.ok(chosen.every(({ state }) => state.away === undefined));
});

t.test('without copies no node is only killed, and without an instant there is no state', async (t) => {
  const instants = SPACE.instants.map((instant) => ({ ...instant, hasCopies: false }));
  const chosen = take({ ...SPACE, instants }, 60);
  t.ok(chosen.every(({ state }) => ![...state.nodes.values()].includes('live')));
  t.same(take({ ...SPACE, from: SPACE.instants.length }, 5), []);
});

t.test('only a torn or kept write that was under way reaches beyond the instant', async (t) => {
  const states = take(SPACE, 200);
  const beyond = states.filter(({ state }) => hasBegunMore(state));
  t.ok(beyond.length > 0);
  t.same(new Set(beyond.map(({ family }) => family)), new Set(['torn']));
});

t.test('every beginning of a spread order lies evenly over all numbers', async (t) => {
  t.same(spread(8), [7, 3, 5, 1, 6, 2, 4, 0]);
  for (const count of [0, 1, 2, 5, 13, 100]) {
    t.same(
      [...spread(count)].sort((one, other) => one - other),
      Array.from({ length: count }, (_, number) => number),
    );
  }
  t.ok(Math.max(...spread(100).slice(0, 8)) - Math.min(...spread(100).slice(0, 8)) > 60);
});
