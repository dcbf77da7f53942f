'use strict';

const { spawnSync } = require('node:child_process');

const { PluginError } = require('./errors');
const { VARIABLES } = require('./settings');

const VERSION = '0.1';
const TIMEOUT_MS = 120_000;
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const INSTALL = "pip install 'cloister[aws,cli]', or name the command in `custom.cloister.command`";

/** The command line `cloister`, which talks to the host and decides; nothing of that is done here. */
class Cli {
  constructor(config, directory) {
    this.config = config;
    this.directory = directory;
    this.command = [].concat(config.command || 'cloister');
  }

  /** Run it; the exit code, what it printed, and that as JSON where it is. */
  run(args) {
    const [program, ...first] = this.command;
    const done = spawnSync(program, [...first, ...args], {
      cwd: this.directory,
      env: { ...process.env, ...this.environment() },
      encoding: 'utf8',
      timeout: TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    if (done.error && done.error.code === 'ENOENT') {
      throw new PluginError(`The command \`${program}\` is not there: ${INSTALL}.`, 'CLOISTER_CLI_MISSING');
    }
    if (done.error) {
      throw new PluginError(`\`cloister ${args[0]}\` did not finish (${done.error.code}).`, 'CLOISTER_CLI_FAILED');
    }
    return { code: done.status, text: done.stdout, json: parse(done.stdout), errors: done.stderr.trim() };
  }

  /** Run it, and insist that it succeeds and prints JSON. */
  expect(args) {
    const done = this.run(args);
    if (done.code !== 0 || done.json === undefined) {
      const said = done.errors || `exit code ${done.code}`;
      throw new PluginError(`\`cloister ${args.join(' ')}\` failed: ${said}`, 'CLOISTER_CLI_FAILED');
    }
    return done;
  }

  /** Refuse a command line that this plugin was not written for. */
  checkVersion() {
    const { code, text } = this.run(['--version']);
    const found = /(\d+\.\d+)\.\d+/.exec(text);
    if (code !== 0 || !found || found[1] !== VERSION) {
      throw new PluginError(
        `This plugin needs cloister ${VERSION}.x and found ${found ? text.trim() : 'another program'}: ${INSTALL}.`,
        'CLOISTER_CLI_VERSION',
      );
    }
  }

  /** Where the host is; who runs this signs in as himself, from his own cloister.toml or environment. */
  environment() {
    const found = {};
    for (const name of ['url', 'tenant', 'policy']) found[VARIABLES[name]] = this.config[name];
    return found;
  }
}

/** One JSON document, or one a line as lists are printed. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    try {
      return text.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line));
    } catch {
      return undefined;
    }
  }
}

module.exports = { Cli };
