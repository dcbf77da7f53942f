'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');

const iam = require('../lib/iam');

const DEPLOYMENT = 'D'.repeat(43);
const SECRET = 'arn:aws:secretsmanager:us-east-1:123456789012:secret:key-AbCdEf';
const PARAMETER = 'arn:aws:ssm:us-east-1:123456789012:parameter/cloister/key';

function serverless(provider, plugins = []) {
  return { service: { provider, plugins } };
}

test('a token can be had for one deployment only', () => {
  const [statement] = iam.statements({}, DEPLOYMENT);
  assert.deepEqual(statement.Action, ['sts:GetWebIdentityToken']);
  assert.deepEqual(statement.Condition['ForAllValues:StringEquals'], {
    'sts:IdentityTokenAudience': [`cloister:${DEPLOYMENT}`],
  });
});

test('without a deployment no token could be bound', () => {
  assert.throws(() => iam.statements({}, undefined), { code: 'CLOISTER_POLICY' });
});

test('a stored key may be read, and nothing else', () => {
  const of = (config) => iam.statements({ identity: 'key', ...config }, DEPLOYMENT);
  assert.deepEqual(of({ apiKeySecret: SECRET }), [
    { Effect: 'Allow', Action: ['secretsmanager:GetSecretValue'], Resource: SECRET },
  ]);
  assert.deepEqual(of({ apiKeySecret: PARAMETER, apiKeyKmsKey: 'arn:k' }), [
    { Effect: 'Allow', Action: ['ssm:GetParameter'], Resource: PARAMETER },
    { Effect: 'Allow', Action: ['kms:Decrypt'], Resource: 'arn:k' },
  ]);
  assert.throws(() => of({}), { code: 'CLOISTER_CONFIGURATION' });
});

const wanted = [{ Effect: 'Allow', Action: ['sts:GetWebIdentityToken'], Resource: '*' }];
const grant = (framework, functions) => iam.grant({ serverless: framework, functions, statements: wanted });

test('the shared role keeps what it had', () => {
  const had = { Effect: 'Allow', Action: ['s3:GetObject'], Resource: '*' };
  for (const provider of [{ iam: { role: { statements: [had] } } }, { iamRoleStatements: [had] }]) {
    assert.deepEqual(grant(serverless(provider), [['f', {}]]), []);
    const statements = provider.iamRoleStatements || provider.iam.role.statements;
    assert.deepEqual(statements, [had, ...wanted]);
  }
});

test('a role of its own gets the statements, and the shared role none', () => {
  const provider = {};
  const plain = {};
  const own = { iamRoleStatements: [{ Effect: 'Allow', Action: ['s3:GetObject'], Resource: '*' }] };
  grant(serverless(provider, ['serverless-iam-roles-per-function']), [['a', plain], ['b', own]]);
  assert.deepEqual(plain, { iamRoleStatements: wanted, iamRoleStatementsInherit: true });
  assert.equal(own.iamRoleStatements.length, 2);
  assert.equal(own.iamRoleStatementsInherit, undefined);
  assert.deepEqual(provider, {});
});

test('a role from outside is told of', () => {
  assert.match(grant(serverless({}), [['f', { role: 'arn:aws:iam::1:role/x' }]])[0], /f has a role.*GetWebIdentity/);
  assert.match(grant(serverless({ iam: { role: 'arn:aws:iam::1:role/x' } }), [['f', {}]])[0], /from outside/);
});
