'use strict';

const { PluginError } = require('./errors');
const { namedIn } = require('./sources');

const ACCEPTED = 0;
const REFUSED = 3;

/**
 * What stands against a deployment: the host is not acceptable, a confidential function is not there or has
 * not been granted what it needs, or a decorator names one that serverless.yml does not list.
 */
function gate({ config, cli, directory, functions, log }) {
  const findings = [
    ...decorators(functions, directory, log),
    ...attestation(config, cli),
  ];
  if (config.statement) {
    log.notice('cloister: attested by a saved statement; grants were not checked, since there is no route to the host');
  } else if (!findings.some(({ isHost }) => isHost)) {
    findings.push(...grants(config, cli, functions));
  }
  if (!findings.length) return;
  const text = findings.map(({ message }) => `  - ${message}`).join('\n');
  if (config.gate === 'warn') {
    log.warning(`cloister: deployed although\n${text}`);
    return;
  }
  throw new PluginError(`Not deployed (custom.cloister.gate: enforce):\n${text}`, 'CLOISTER_GATE');
}

function attestation(config, cli) {
  cli.checkVersion();
  const saved = config.statement ? ['--statement', config.statement] : [];
  const { code, json, errors } = cli.run(['attest', '--json', ...saved]);
  if (code === ACCEPTED && json && json.verdict === 'accepted') return [];
  const reason = (json && json.reason) || errors || `exit code ${code}`;
  const what = code === REFUSED ? 'the enclave host is refused' : 'the enclave host cannot be attested';
  return [{ isHost: true, message: `${what}: ${reason}` }];
}

function grants(config, cli, functions) {
  const found = [];
  const invoked = new Set(functions.flatMap(([, { cloister }]) => cloister.invoke || []));
  if (invoked.size) {
    const listed = list(cli, ['function', 'list']);
    const given = list(cli, ['grant', 'list']);
    for (const reference of invoked) found.push(...ofFunction(reference, listed, given));
    if (config.principal) found.push(...ofPrincipal(config.principal, functions, given));
  } else if (config.principal) {
    found.push(...ofPrincipal(config.principal, functions, list(cli, ['grant', 'list'])));
  }
  return found;
}

function list(cli, args) {
  const { json } = cli.expect(args);
  return Array.isArray(json) ? json : [json];
}

function ofFunction(reference, listed, given) {
  const [name, selector] = reference.split('@');
  const entry = listed.find((one) => one.name === name);
  const digest = entry && (entry.aliases[selector] || selector);
  const version = entry && entry.versions.find((one) => one.digest === digest);
  if (!version) return [{ message: `${reference} is not deployed: cloister function deploy` }];
  if (entry.disabled) return [{ message: `${reference} is disabled` }];
  return version.needs
    .filter((need) => !isGranted(given, `function:${digest}`, need.action, need.resource))
    .map((need) => ({
      message: `${reference} is not granted ${need.action} on ${need.resource}: ` +
        `cloister grant add function:${digest} ${need.action} ${need.resource}`,
    }));
}

function ofPrincipal(principal, functions, given) {
  const wanted = new Map();
  for (const [, { cloister }] of functions) {
    for (const reference of cloister.invoke || []) wanted.set(`invoke function/${reference.split('@')[0]}`, true);
    for (const key of cloister.seal || []) wanted.set(`seal key/${key}`, true);
    for (const policy of cloister.tokenize || []) wanted.set(`tokenize policy/${policy}`, true);
  }
  return [...wanted.keys()]
    .filter((right) => !isGranted(given, principal, ...right.split(' ')))
    .map((right) => ({ message: `${principal} may not ${right}: cloister grant add ${principal} ${right}` }));
}

function isGranted(given, principal, action, resource) {
  return given.some((grant) => grant.principal === principal && grant.action === action &&
    (grant.resource === '*' || grant.resource === resource || grant.resource === `${resource.split('/')[0]}/*`));
}

function decorators(functions, directory, log) {
  const found = [];
  for (const [name, definition] of functions) {
    const { references, isOpen } = namedIn(definition, directory);
    const listed = new Set(definition.cloister.invoke || []);
    for (const reference of references) {
      if (!listed.has(reference)) {
        found.push({
          message: `a decorator of ${name} names ${reference}, which functions.${name}.cloister.invoke does not list`,
        });
      }
    }
    if (isOpen) log.warning(`cloister: a decorator of ${name} takes its name from a variable; it was not checked`);
  }
  return found;
}

module.exports = { gate };
