'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');

const { Cli } = require('../lib/cli');

const node = (program) => new Cli({ url: 'https://h', tenant: 'acme', policy: 'p.toml', command: [process.execPath, '-e', program, '--'] }, '.');

test('it is run with the settings of the service', () => {
  const program = 'console.log(JSON.stringify([process.env.CLOISTER_URL, process.env.CLOISTER_TENANT, process.argv.slice(1)]))';
  assert.deepEqual(node(program).expect(['attest', '--json']).json, ['https://h', 'acme', ['attest', '--json']]);
});

test('arguments are not read by a shell', () => {
  const done = node('console.log(JSON.stringify(process.argv.slice(1)))').expect(['$(id)', 'a b']);
  assert.deepEqual(done.json, ['$(id)', 'a b']);
});

test('a list is one document a line', () => {
  assert.deepEqual(node('console.log("{\\"a\\":1}\\n{\\"a\\":2}")').expect(['x']).json, [{ a: 1 }, { a: 2 }]);
});

test('another version, and another program, are refused', () => {
  for (const said of ['cloister 9.4.0', 'hello', '']) {
    assert.throws(() => node(`console.log(${JSON.stringify(said)})`).checkVersion(), { code: 'CLOISTER_CLI_VERSION' });
  }
  node('console.log("cloister 0.1.7")').checkVersion();
});

test('a command that is not there is told with the install line', () => {
  const cli = new Cli({ command: 'no-such-cloister' }, '.');
  assert.throws(() => cli.checkVersion(), { code: 'CLOISTER_CLI_MISSING', message: /pip install/ });
});

test('a failure shows what the command says', () => {
  const cli = node('console.error("error [denied]: no grant"); process.exit(1)');
  assert.throws(() => cli.expect(['grant', 'list']), { code: 'CLOISTER_CLI_FAILED', message: /no grant/ });
});
