'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');

const { refuseSecrets } = require('../lib/secrets');

const refused = (environment, config = {}) => {
  try {
    refuseSecrets(environment, 'forecast', config);
  } catch (error) {
    return error.message;
  }
  return null;
};

for (const [name, value] of [
  ['DB_PASSWORD', 'hunter2'],
  ['PARTNER_API_KEY', 'b7f3'],
  ['CLOISTER_API_KEY', 'clk_a_b'],
  ['TOKEN', 'abcdef'],
  ['PrivateKey_PRIVATE_KEY', 'x'],
  ['ANYTHING', '-----BEGIN PRIVATE KEY-----'],
  ['ANYTHING', 'AKIAIOSFODNN7EXAMPLE'],
  ['ANYTHING', 'clk_tenant_0123'],
  ['ANYTHING', 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln'],
  ['ANYTHING', 'sk_live_0123'],
]) {
  test(`${name} with a secret in the clear is refused by name and without its value`, () => {
    const message = refused({ [name]: value });
    assert.match(message, new RegExp(name));
    assert.ok(!message.includes(value));
  });
}

for (const [name, value] of [
  ['DB_PASSWORD', { Ref: 'Secret' }],
  ['DB_SECRET', 'arn:aws:secretsmanager:us-east-1:1:secret:db'],
  ['DB_PASSWORD', '{{resolve:secretsmanager:db}}'],
  ['API_KEY_FILE', 'forecast.key'],
  ['TOKEN_TTL', '300'],
  ['TOKENS', '300'],
  ['SECRET_NAME', 'db'],
  ['TOKENIZER', 'word'],
  ['CLOISTER_URL', 'https://cloister.example.com'],
  ['STAGE', 'dev'],
]) {
  test(`${name} with ${JSON.stringify(value)} is no secret`, () => assert.equal(refused({ [name]: value }), null));
}

test('a name may be allowed', () => {
  assert.equal(refused({ PWD_COLOR: 'blue' }, { allowEnvironment: ['PWD_COLOR'] }), null);
});
