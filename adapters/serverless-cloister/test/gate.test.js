'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');

const { gate } = require('../lib/gate');

const DIGEST = 'd'.repeat(64);
const NEEDS = [{ action: 'use-in-function', resource: 'key/salaries' }];
const LISTED = [{
  name: 'salary-band', disabled: false, aliases: { prod: DIGEST }, versions: [{ digest: DIGEST, needs: NEEDS }],
}];
const GRANTED = [
  { principal: `function:${DIGEST}`, action: 'use-in-function', resource: 'key/salaries' },
  { principal: 'lambda', action: 'invoke', resource: 'function/*' },
  { principal: 'lambda', action: 'seal', resource: '*' },
];

class Cli {
  constructor({ code = 0, json = { verdict: 'accepted' }, listed = LISTED, granted = GRANTED } = {}) {
    Object.assign(this, { code, json, listed, granted, asked: [] });
  }

  checkVersion() {}

  run(args) {
    this.asked.push(args.join(' '));
    return { code: this.code, json: this.json, errors: '' };
  }

  expect(args) {
    this.asked.push(args.join(' '));
    return { code: 0, json: args[0] === 'function' ? this.listed : this.granted };
  }
}

function pass({ cli = new Cli(), config = {}, cloister = { invoke: ['salary-band@prod'] } } = {}) {
  const told = [];
  const log = { warning: (text) => told.push(text), notice: (text) => told.push(text) };
  const functions = [['ask', { handler: 'gone.handler', cloister }]];
  gate({ config, cli, directory: '/nowhere', functions, log });
  return told;
}

const stopped = (arguments_) => {
  try {
    pass(arguments_);
  } catch (error) {
    assert.equal(error.code, 'CLOISTER_GATE');
    return error.message;
  }
  return assert.fail('the gate is open');
};

test('an accepted host with granted functions passes', () => {
  assert.deepEqual(pass(), []);
  assert.deepEqual(pass({ cloister: { invoke: [`salary-band@${DIGEST}`] } }), []);
});

test('a refused host stops the deployment, and nothing more is asked of it', () => {
  const cli = new Cli({ code: 3, json: { verdict: 'refused', reason: 'debug' } });
  assert.match(stopped({ cli }), /refused: debug/);
  assert.deepEqual(cli.asked, ['attest --json']);
});

for (const [what, outcome] of [
  ['a host that cannot be attested', { code: 2, json: { verdict: 'unusable', reason: 'no route' } }],
  ['a command that breaks', { code: 1, json: null }],
  ['a success without a verdict', { code: 0, json: null }],
  ['a success with another verdict', { code: 0, json: { verdict: 'refused' } }],
]) {
  test(`${what} stops the deployment`, () => assert.match(stopped({ cli: new Cli(outcome) }), /enclave host/));
}

for (const [what, changed, pattern] of [
  ['is not there', { listed: [] }, /is not deployed/],
  ['has another alias', { listed: [{ ...LISTED[0], aliases: {} }] }, /is not deployed/],
  ['is disabled', { listed: [{ ...LISTED[0], disabled: true }] }, /is disabled/],
  ['is not granted what it needs', { granted: [] }, /grant add function:d+ use-in-function key\/salaries/],
]) {
  test(`a function that ${what} stops the deployment`, () => {
    assert.match(stopped({ cli: new Cli(changed) }), pattern);
  });
}

test('a principal without its rights stops the deployment', () => {
  const cloister = { invoke: ['salary-band@prod'], seal: ['forecasts'], tokenize: ['pin'] };
  const message = stopped({ config: { principal: 'lambda' }, cloister });
  assert.match(message, /lambda may not tokenize policy\/pin/);
  assert.doesNotMatch(message, /invoke|seal/);
});

test('with `warn` it is told and deployed', () => {
  const told = pass({ cli: new Cli({ code: 3, json: { reason: 'debug' } }), config: { gate: 'warn' } });
  assert.match(told[0], /deployed although\n {2}- .*debug/);
});

test('a saved statement stands for the host, and what was not checked is said', () => {
  const cli = new Cli();
  const told = pass({ cli, config: { statement: 'host.json' } });
  assert.deepEqual(cli.asked, ['attest --json --statement host.json']);
  assert.match(told[0], /grants were not checked/);
});
