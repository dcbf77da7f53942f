'use strict';

const { PluginError } = require('./errors');

const TELLING_NAME = /(^|_)(API_?KEYS?|CREDENTIALS?|PASSPHRASE|PASSWD|PASSWORD|PRIVATE_?KEY|PWD|SECRETS?|TOKENS?)(_|$)/i;
// A variable that says where a secret is, and what it is not.
const POINTS_ELSEWHERE = /_(ARNS?|FILE|ID|NAME|PARAMETER|PATH|SECONDS|TTL|URI|URL)$/i;
const TELLING_VALUE = new RegExp([
  '^clk_', '^AKIA[0-9A-Z]{16}$', '^-----BEGIN ', '^gh[pousr]_', '^sk_(live|test)_', '^xox[abpr]-',
  '^eyJ[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$',
].join('|'));
// A pointer to a secret, a boolean or a number.
const HARMLESS_VALUE = /^(arn:[\w-]+:|\{\{resolve:|true$|false$|\d{1,9}$|$)/;

/**
 * Refuse secrets in the clear: whoever may read a function's configuration reads its environment. Variables
 * such as ${ssm:...} are resolved before this, so they count as the plaintext that they would become.
 */
function refuseSecrets(environment, where, config) {
  const allowed = new Set(config.allowEnvironment || []);
  const found = Object.entries(environment || {})
    .filter(([name, value]) => !allowed.has(name) && isSecret(name, value))
    .map(([name]) => name);
  if (found.length) {
    throw new PluginError(
      `The environment of ${where} holds what looks like a secret in the clear: ${found.join(', ')}. Keep it in ` +
        'Secrets Manager and give its ARN, or seal it; list the name in `custom.cloister.allowEnvironment` if it is none.',
      'CLOISTER_PLAINTEXT_SECRET',
    );
  }
}

function isSecret(name, value) {
  if (typeof value !== 'string') return false; // a CloudFormation function, or no text
  if (TELLING_VALUE.test(value)) return true;
  return TELLING_NAME.test(name) && !POINTS_ELSEWHERE.test(name) && !HARMLESS_VALUE.test(value);
}

module.exports = { refuseSecrets };
