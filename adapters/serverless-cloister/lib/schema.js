'use strict';

const NAME = '[a-z][a-z0-9-]{0,62}';
const names = { type: 'array', items: { type: 'string', pattern: `^${NAME}$` }, minItems: 1, uniqueItems: true };
// A text, or a CloudFormation function such as { Ref: ... }.
const reference = { anyOf: [{ type: 'string', minLength: 1 }, { type: 'object' }] };

const custom = {
  type: 'object',
  properties: {
    url: { type: 'string', pattern: '^https?://' },
    tenant: { type: 'string', pattern: `^${NAME}$` },
    policy: { type: 'string', minLength: 1 },
    identity: { enum: ['aws', 'key'] },
    apiKeySecret: reference,
    apiKeyKmsKey: reference,
    timeoutSeconds: { type: 'number', exclusiveMinimum: 0, maximum: 1200 },
    principal: { type: 'string', pattern: `^${NAME}$` },
    gate: { enum: ['enforce', 'warn'] },
    statement: { type: 'string', minLength: 1 },
    layer: reference,
    vpc: {
      type: 'object',
      properties: {
        securityGroupIds: { anyOf: [{ type: 'array' }, { type: 'object' }] },
        subnetIds: { anyOf: [{ type: 'array' }, { type: 'object' }] },
      },
      required: ['securityGroupIds', 'subnetIds'],
      additionalProperties: false,
    },
    command: { anyOf: [{ type: 'string', minLength: 1 }, { type: 'array', items: { type: 'string' }, minItems: 1 }] },
    allowEnvironment: { type: 'array', items: { type: 'string' } },
    functions: {
      type: 'object',
      patternProperties: {
        [`^${NAME}$`]: {
          type: 'object',
          properties: {
            path: { type: 'string', minLength: 1 },
            alias: { type: 'string', pattern: `^${NAME}$` },
            grant: { type: 'boolean' },
          },
          required: ['path'],
          additionalProperties: false,
        },
      },
      additionalProperties: false,
    },
  },
  required: ['url', 'tenant', 'policy'],
  additionalProperties: false,
};

const perFunction = {
  type: 'object',
  properties: {
    invoke: {
      type: 'array',
      items: { type: 'string', pattern: `^${NAME}@(${NAME}|[0-9a-f]{64})$` },
      minItems: 1,
      uniqueItems: true,
    },
    seal: names,
    tokenize: names,
  },
  minProperties: 1,
  additionalProperties: false,
};

function define(handler) {
  handler.defineCustomProperties({ type: 'object', properties: { cloister: custom } });
  handler.defineFunctionProperties('aws', { type: 'object', properties: { cloister: perFunction } });
}

module.exports = { custom, define, perFunction };
