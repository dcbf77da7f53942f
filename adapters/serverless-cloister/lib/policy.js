'use strict';

const fs = require('node:fs');
const path = require('node:path');

const { PluginError } = require('./errors');

const MAX_BYTES = 1024 * 1024;

/** The appraisal policy: its text, and its path inside service and artifact, with forward slashes. */
function readPolicy(config, directory) {
  const file = path.resolve(directory, config.policy);
  const inside = path.relative(directory, file);
  if (inside.startsWith('..') || path.isAbsolute(inside)) {
    throw new PluginError(
      `The policy ${config.policy} is outside the service, so it cannot be packed. Copy it beside serverless.yml.`,
      'CLOISTER_POLICY',
    );
  }
  let text;
  try {
    if (fs.statSync(file).size > MAX_BYTES) throw new Error('too large');
    text = fs.readFileSync(file, 'utf8');
  } catch {
    throw new PluginError(
      `The policy ${config.policy} cannot be read. It says which enclave host is trusted.`,
      'CLOISTER_POLICY',
    );
  }
  return { text, path: inside.split(path.sep).join('/') };
}

/** The deployment that the policy names, if it does. */
function deploymentOf(text) {
  const found = /^\s*"?deployment"?\s*[=:]\s*"([A-Za-z0-9_-]{43})"/m.exec(text);
  return found ? found[1] : undefined;
}

module.exports = { deploymentOf, readPolicy };
