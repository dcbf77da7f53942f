'use strict';

/** The variables that the SDK reads, by the setting of `custom.cloister` that fills them. */
const VARIABLES = {
  url: 'CLOISTER_URL',
  tenant: 'CLOISTER_TENANT',
  policy: 'CLOISTER_POLICY',
  identity: 'CLOISTER_IDENTITY',
  apiKeySecret: 'CLOISTER_API_KEY_SECRET',
  timeoutSeconds: 'CLOISTER_TIMEOUT_SECONDS',
};

/** The environment of a function. */
function environment(config, policyPath) {
  const values = { identity: 'aws', ...config, policy: policyPath };
  const found = {};
  for (const [name, variable] of Object.entries(VARIABLES)) {
    if (values[name] !== undefined) {
      found[variable] = typeof values[name] === 'object' ? values[name] : String(values[name]);
    }
  }
  return found;
}

module.exports = { VARIABLES, environment };
