'use strict';

const path = require('node:path');

const { PluginError } = require('./errors');

const NAME = 'cloister';
const LOGICAL_ID = 'CloisterLambdaLayer';

/**
 * What goes into `layers` of a function: the ARN that was given, or with `layer: build` a layer of this service,
 * built by `cloister aws layer` for the service's runtime and architecture.
 */
function buildLayer({ config, service, cli, directory }) {
  if (!config.layer || config.layer !== 'build') return config.layer;
  const runtime = String(service.provider.runtime || '');
  const python = /^python(3\.\d+)$/.exec(runtime);
  if (!python) {
    throw new PluginError('`layer: build` needs a Python runtime in `provider.runtime`.', 'CLOISTER_LAYER');
  }
  const architecture = service.provider.architecture || 'x86_64';
  const artifact = path.join('.serverless', 'cloister-layer.zip');
  const command = cli();
  command.checkVersion();
  command.expect([
    'aws', 'layer', '--python', python[1], '--architecture', architecture, '--out', artifact, '--json',
  ]);
  service.layers = {
    ...service.layers,
    [NAME]: {
      name: `${service.service}-cloister`,
      description: 'Cloister SDK',
      compatibleRuntimes: [runtime],
      compatibleArchitectures: [architecture],
      package: { artifact: path.resolve(directory, artifact) },
    },
  };
  return { Ref: LOGICAL_ID };
}

module.exports = { buildLayer };
