import t from 'tap';
import { labelsOf, ownRunsOf } from './engine.js';

t.test(
  "a run is this user's own when all its objects have the labels of this user and this boot",
  async (t) => {
    const own = labelsOf('a');
    t.same(ownRunsOf([own, labelsOf('b'), own]), ['a', 'b']);
    t.same(Object.keys(own), ['plugpull.run', 'plugpull.uid', 'plugpull.boot']);
    for (const foreign of [
      { 'plugpull.run': 'a' },
      { ...own, 'plugpull.uid': '54321' },
      { ...own, 'plugpull.boot': 'another' },
    ]) {
      t.same(ownRunsOf([foreign, labelsOf('b')]), ['b']);
      t.same(ownRunsOf([own, foreign]), [], "another user's object in it");
      t.same(ownRunsOf([foreign, own]), []);
    }
    t.same(ownRunsOf([{}]), []);
  },
);
