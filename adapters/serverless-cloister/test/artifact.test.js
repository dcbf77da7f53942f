'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');

const { holds } = require('../lib/artifact');
const { deploymentOf, readPolicy } = require('../lib/policy');
const hints = require('../lib/hints');

// A zip with the empty file policy.toml, as `zip -X` writes it.
const ZIP = Buffer.from(
  '504b03040a0000000000000021000000000000000000000000000b000000706f6c6963792e746f6d6c' +
  '504b01021e030a0000000000000021000000000000000000000000000b0000000000000000000000a48100000000706f6c6963792e746f6d6c' +
  '504b050600000000010001003900000029000000' + '0000', 'hex');

test('a file is found in a zip by its whole name', () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cloister-'));
  const artifact = path.join(directory, 'a.zip');
  fs.writeFileSync(artifact, ZIP);
  assert.equal(holds(artifact, 'policy.toml'), true);
  assert.equal(holds(artifact, 'policy'), false);
  assert.equal(holds(artifact, 'a/policy.toml'), false);
  fs.rmSync(directory, { recursive: true });
});

test('the deployment is read from TOML and from JSON', () => {
  const name = 'A-_'.repeat(14) + 'B';
  assert.equal(deploymentOf(`version = 1\ndeployment = "${name}"\n`), name);
  assert.equal(deploymentOf(`{\n  "deployment": "${name}"\n}`), name);
  assert.equal(deploymentOf('# deployment = "x"\n'), undefined);
});

test('a policy outside the service, or none, is refused', () => {
  for (const policy of ['../policy.toml', '/etc/policy.toml', 'gone.toml']) {
    assert.throws(() => readPolicy({ policy }, __dirname), { code: 'CLOISTER_POLICY' });
  }
});

test('hints name what will not work', () => {
  const of = (url, definition, provider = {}) => hints.of({
    service: { provider }, config: { url }, functions: [['f', definition]],
  });
  assert.match(of('https://10.0.0.5', {})[0], /private/);
  assert.match(of('https://host.internal', {})[0], /private/);
  assert.deepEqual(of('https://cloister.example.com', {}), []);
  assert.match(of('https://cloister.example.com', { vpc: {} })[0], /STS/);
  assert.match(of('https://cloister.example.com', { events: [{ sqs: { arn: 'x' } }] })[0], /ReportBatchItemFailures/);
  assert.match(of('https://cloister.example.com', { events: [{ stream: 'arn' }] })[0], /ReportBatchItemFailures/);
  const right = { events: [{ sqs: { arn: 'x', functionResponseType: 'ReportBatchItemFailures' } }, { http: 'GET /' }] };
  assert.deepEqual(of('https://cloister.example.com', right), []);
});
