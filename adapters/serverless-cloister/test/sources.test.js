'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');

const { namedIn } = require('../lib/sources');

function service(files) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cloister-'));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(directory, name)), { recursive: true });
    fs.writeFileSync(path.join(directory, name), text);
  }
  return directory;
}

const names = (files, definition) => {
  const directory = service(files);
  try {
    const found = namedIn(definition, directory);
    return [[...found.references].sort(), found.isOpen];
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
};

test('decorators are found however they are written', () => {
  const text = [
    '@confidential("a@prod")', "@cloister_aws.confidential('b@prod', per=\"record\")",
    '@confidential(\n    function="c@prod",\n)', '    @confidential("d@prod", client=x)',
  ].join('\ndef f(): ...\n');
  assert.deepEqual(names({ 'app.py': text }, { handler: 'app.handler' }), [['a@prod', 'b@prod', 'c@prod', 'd@prod'], false]);
});

test('a name from a variable is told of', () => {
  assert.deepEqual(names({ 'app.py': '@confidential(NAME)\ndef f(): ...' }, { handler: 'app.f' }), [[], true]);
});

test('an example in a comment or a docstring is no decorator', () => {
  const text = '"""\n@confidential("a@prod")\n"""\n# @confidential("b@prod")\n';
  assert.deepEqual(names({ 'app.py': text }, { handler: 'app.f' }), [[], false]);
});

test("the service's own modules are followed, packages and relative imports too", () => {
  const files = {
    'src/app.py': 'from .lib import work\nimport other, json\nfrom pkg.deep import f',
    'src/lib.py': '@confidential("a@prod")\ndef f(): ...\nimport app',
    'other.py': '@confidential("b@prod")',
    'pkg/deep/__init__.py': '@confidential("c@prod")',
    'unused.py': '@confidential("d@prod")',
  };
  assert.deepEqual(names(files, { handler: 'src/app.handler' }), [['a@prod', 'b@prod', 'c@prod'], false]);
});

test('a module of its own, as serverless-python-requirements has it', () => {
  const files = { 'one/app.py': '@confidential("a@prod")' };
  assert.deepEqual(names(files, { handler: 'app.handler', module: 'one' }), [['a@prod'], false]);
});

test('a handler that is not there has no decorators', () => {
  assert.deepEqual(names({}, { handler: 'gone.handler' }), [[], false]);
  assert.deepEqual(names({}, { image: 'x' }), [[], false]);
});
