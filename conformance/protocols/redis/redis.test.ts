import { protocolSuite } from '../../fixtures/protocol-suite.js';

protocolSuite('redis-always', 'redis-server');
protocolSuite('redis-list-always', 'redis-server');
