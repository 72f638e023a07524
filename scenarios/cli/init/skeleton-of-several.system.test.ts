import { testSkeletons } from '../../fixtures/skeletons.js';

testSkeletons('several');
