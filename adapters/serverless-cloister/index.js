'use strict';

const path = require('node:path');

const { holds } = require('./lib/artifact');
const { Cli } = require('./lib/cli');
const { PluginError } = require('./lib/errors');
const { gate } = require('./lib/gate');
const hints = require('./lib/hints');
const iam = require('./lib/iam');
const { buildLayer } = require('./lib/layer');
const { deploymentOf, readPolicy } = require('./lib/policy');
const schema = require('./lib/schema');
const { refuseSecrets } = require('./lib/secrets');
const settings = require('./lib/settings');

const RUN = { lifecycleEvents: ['run'] };

/**
 * Hooks only: what a service with confidential functions needs beside its handlers, and a gate before its
 * deployment. All cryptography and every verdict comes from the command line `cloister`.
 */
class ServerlessCloister {
  constructor(serverless, options, utils = {}) {
    this.serverless = serverless;
    this.log = utils.log || console;
    this.isConfigured = false;
    schema.define(serverless.configSchemaHandler);
    this.commands = {
      cloister: {
        usage: 'Confidential functions: their host, their grants, their deployment',
        commands: {
          doctor: { usage: 'Say what is missing between this service and its enclave host', ...RUN },
          attest: { usage: 'Attest the enclave host against the appraisal policy', ...RUN },
          deploy: { usage: 'Deploy the confidential functions of custom.cloister.functions', ...RUN },
        },
      },
    };
    const configure = this.guarded(() => this.configure());
    const check = this.guarded(() => this.check());
    this.hooks = {
      'before:package:initialize': configure,
      'before:package:function:package': configure,
      'before:offline:start:init': configure,
      'before:offline:start': configure,
      'before:invoke:local:invoke': configure,
      'after:package:createDeploymentArtifacts': this.guarded(() => this.verifyArtifacts()),
      'before:package:finalize': this.guarded(() => this.annotate()),
      'before:deploy:deploy': check,
      'before:deploy:function:initialize': this.guarded(() => { this.configure(); this.check(); }),
      'cloister:doctor:run': this.guarded(() => this.run(['doctor', '--json'])),
      'cloister:attest:run': this.guarded(() => this.run(['attest', '--json'])),
      'cloister:deploy:run': this.guarded(() => this.deployFunctions()),
    };
  }

  /** Errors as the framework shows them: a message and a code, no stack. */
  guarded(hook) {
    return async () => {
      try {
        await hook();
      } catch (error) {
        if (!(error instanceof PluginError)) throw error;
        throw new this.serverless.classes.Error(error.message, error.code);
      }
    };
  }

  get service() {
    return this.serverless.service;
  }

  get directory() {
    return this.serverless.serviceDir || this.serverless.config.servicePath;
  }

  /** `custom.cloister`; that it is there once a function asks for it is checked here. */
  get config() {
    const config = (this.service.custom || {}).cloister;
    if (config) return config;
    if (!this.functions().length) return undefined;
    throw new PluginError(
      'A function has `cloister`, but there is no `custom.cloister`. Name there url, tenant and policy.',
      'CLOISTER_CONFIGURATION',
    );
  }

  /** The functions that call confidential ones: [name, definition]. */
  functions() {
    return this.service.getAllFunctions()
      .map((name) => [name, this.service.getFunction(name)])
      .filter(([, definition]) => definition.cloister);
  }

  get cli() {
    return new Cli(this.config, this.directory);
  }

  /** Environment, rights, policy and layer of every function that has `cloister`. */
  configure() {
    const { config } = this;
    if (this.isConfigured || !config) return;
    this.isConfigured = true;
    const policy = readPolicy(config, this.directory);
    const functions = this.functions();
    refuseSecrets(this.service.provider.environment, 'provider', config);
    for (const [name, definition] of functions) refuseSecrets(definition.environment, name, config);
    const layer = buildLayer({ config, service: this.service, cli: () => this.cli, directory: this.directory });
    const statements = iam.statements(config, deploymentOf(policy.text));
    const shared = this.service.package = this.service.package || {};
    shared.patterns = [...(shared.patterns || []), policy.path];
    for (const [, definition] of functions) {
      definition.environment = { ...settings.environment(config, policy.path), ...definition.environment };
      if (definition.package && (definition.package.patterns || definition.package.individually)) {
        definition.package.patterns = [...(definition.package.patterns || []), policy.path];
      }
      if (layer) definition.layers = [...(definition.layers || this.service.provider.layers || []), layer];
      if (config.vpc && !definition.vpc && !this.service.provider.vpc) definition.vpc = config.vpc;
    }
    const told = iam.grant({ serverless: this.serverless, functions, statements });
    for (const message of [...told, ...hints.of({ service: this.service, config, functions })]) {
      this.log.warning(`cloister: ${message}`);
    }
    for (const [name] of functions) this.log.verbose?.(`cloister: configured ${name}`);
  }

  /** The policy has to be in each artifact: without it a function trusts no host and answers nothing. */
  verifyArtifacts() {
    const { config } = this;
    if (!config) return;
    const policy = readPolicy(config, this.directory);
    for (const [name, definition] of this.functions()) {
      if (definition.image) continue;
      const artifact = (definition.package || {}).artifact || (this.service.package || {}).artifact;
      if (artifact && !holds(path.resolve(this.directory, artifact), policy.path)) {
        throw new PluginError(
          `The artifact of ${name} does not hold ${policy.path}. Add it to the patterns, or to the artifact.`,
          'CLOISTER_POLICY_NOT_PACKED',
        );
      }
    }
  }

  /** What the stack says about itself, and a last look at what other plugins have left of ours. */
  annotate() {
    const { config } = this;
    if (!config || !this.functions().length) return;
    const template = this.service.provider.compiledCloudFormationTemplate;
    const { naming } = this.serverless.getProvider('aws');
    const invoked = [];
    for (const [name, definition] of this.functions()) {
      const resource = template.Resources[naming.getLambdaLogicalId(name)];
      const variables = ((resource || {}).Properties.Environment || {}).Variables || {};
      if (!variables.CLOISTER_URL) {
        throw new PluginError(`${name} has lost its CLOISTER_* variables.`, 'CLOISTER_ENVIRONMENT_LOST');
      }
      const { invoke = [], seal = [] } = definition.cloister;
      resource.Metadata = { ...resource.Metadata, Cloister: { Invoke: invoke, Seal: seal } };
      invoked.push(...invoke.map((reference) => `${name}=${reference}`));
    }
    const deployment = deploymentOf(readPolicy(config, this.directory).text);
    template.Outputs = {
      ...template.Outputs,
      CloisterUrl: { Description: 'The enclave host', Value: config.url },
      ...(deployment && { CloisterDeployment: { Description: 'The deployment it has to be', Value: deployment } }),
      ...(invoked.length && {
        CloisterInvokes: { Description: 'Which function calls which confidential one', Value: invoked.join(' ') },
      }),
    };
  }

  /** The gate: nothing is deployed that could not work, or that would trust a host it should not. */
  check() {
    const { config } = this;
    if (!config || !this.functions().length) return;
    gate({ config, cli: this.cli, directory: this.directory, functions: this.functions(), log: this.log });
  }

  run(args) {
    if (!this.config) throw new PluginError('There is no `custom.cloister`.', 'CLOISTER_CONFIGURATION');
    const { cli } = this;
    cli.checkVersion();
    const { code, json, text, errors } = cli.run(args);
    this.serverless.cli?.consoleLog ? this.serverless.cli.consoleLog(text.trimEnd()) : console.log(text.trimEnd());
    if (code !== 0) {
      const failed = ((json && json.steps) || []).filter(({ status }) => status === 'failed');
      const reason = failed.map(({ step, detail }) => `${step}: ${detail}`).join('; ') ||
        (json && json.reason) || errors || `exit code ${code}`;
      throw new PluginError(`cloister ${args[0]}: ${reason}`, `CLOISTER_${args[0].toUpperCase()}`);
    }
  }

  deployFunctions() {
    const functions = Object.entries((this.config || {}).functions || {});
    if (!functions.length) {
      throw new PluginError('`custom.cloister.functions` lists no confidential functions.', 'CLOISTER_CONFIGURATION');
    }
    const { cli } = this;
    cli.checkVersion();
    for (const [name, { path: folder, alias, grant }] of functions) {
      const args = ['function', 'deploy', folder, ...(alias ? ['--alias', alias] : []), ...(grant ? ['--grant'] : [])];
      const { json } = cli.expect(args);
      if (json.name !== name) {
        throw new PluginError(`${folder} holds the function ${json.name}, not ${name}.`, 'CLOISTER_CONFIGURATION');
      }
      this.log.notice(`cloister: ${name} is ${json.digest}${alias ? `, ${name}@${alias}` : ''}`);
    }
  }
}

module.exports = ServerlessCloister;
