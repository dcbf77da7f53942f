'use strict';

const { PluginError } = require('./errors');

const PER_FUNCTION = 'serverless-iam-roles-per-function';
const TOKEN_SECONDS = 300;

/** The least that a function needs in AWS to say who it is: a token for this deployment, or one secret. */
function statements(config, deployment) {
  if ((config.identity || 'aws') === 'aws') {
    if (!deployment) {
      throw new PluginError(
        'The policy names no deployment, so tokens cannot be bound to one. Name it there.',
        'CLOISTER_POLICY',
      );
    }
    return [{
      Effect: 'Allow',
      Action: ['sts:GetWebIdentityToken'],
      Resource: '*',
      Condition: {
        'ForAllValues:StringEquals': { 'sts:IdentityTokenAudience': [`cloister:${deployment}`] },
        StringEquals: { 'sts:SigningAlgorithm': 'ES384' },
        NumericLessThanEquals: { 'sts:DurationSeconds': TOKEN_SECONDS },
      },
    }];
  }
  if (!config.apiKeySecret) {
    throw new PluginError(
      '`identity: key` needs `apiKeySecret`: the ARN of a Secrets Manager secret or an SSM parameter.',
      'CLOISTER_CONFIGURATION',
    );
  }
  const isParameter = typeof config.apiKeySecret === 'string' && config.apiKeySecret.includes(':ssm:');
  return [
    {
      Effect: 'Allow',
      Action: [isParameter ? 'ssm:GetParameter' : 'secretsmanager:GetSecretValue'],
      Resource: config.apiKeySecret,
    },
    ...(config.apiKeyKmsKey
      ? [{ Effect: 'Allow', Action: ['kms:Decrypt'], Resource: config.apiKeyKmsKey }]
      : []),
  ];
}

/** Give the statements to the roles of the functions; returns what the user has to do himself. */
function grant({ serverless, functions, statements: wanted }) {
  const { service } = serverless;
  const told = [];
  const hasOwnRoles = isLoaded(serverless);
  let needsShared = false;
  for (const [name, definition] of functions) {
    if (definition.role) {
      told.push(`${name} has a role of its own; it needs ${actionsOf(wanted)}`);
    } else if (hasOwnRoles) {
      // A role of its own still has what the service gives all of them, unless it was told otherwise.
      if (!definition.iamRoleStatements && definition.iamRoleStatementsInherit === undefined) {
        definition.iamRoleStatementsInherit = true;
      }
      definition.iamRoleStatements = [...(definition.iamRoleStatements || []), ...wanted];
    } else {
      needsShared = true;
    }
  }
  if (needsShared && !share(service.provider, wanted)) {
    told.push(`the service's role is given from outside; it needs ${actionsOf(wanted)}`);
  }
  return told;
}

function share(provider, wanted) {
  if (provider.role || typeof (provider.iam || {}).role === 'string') return false;
  if (Array.isArray(provider.iamRoleStatements)) {
    provider.iamRoleStatements.push(...wanted);
    return true;
  }
  provider.iam = provider.iam || {};
  provider.iam.role = provider.iam.role || {};
  if (provider.iam.role['Fn::GetAtt'] || provider.iam.role['Fn::ImportValue']) return false;
  provider.iam.role.statements = [...(provider.iam.role.statements || []), ...wanted];
  return true;
}

function isLoaded(serverless) {
  const plugins = serverless.service.plugins || [];
  const names = Array.isArray(plugins) ? plugins : plugins.modules || [];
  return names.includes(PER_FUNCTION);
}

function actionsOf(wanted) {
  return wanted.flatMap(({ Action }) => Action).join(', ');
}

module.exports = { grant, statements };
