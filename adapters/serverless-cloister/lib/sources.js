'use strict';

const fs = require('node:fs');
const path = require('node:path');

const DECORATOR = /@(?:[\w.]+\.)?confidential\(\s*(?:function\s*=\s*)?(?:(["'])([^"'\n]*)\1|([^"'\s)]))/g;
const IMPORT = /^\s*(?:from\s+(\.*)([\w.]*)\s+import\s+([\w, ]+)|import\s+([\w., ]+))/gm;
const MAX_FILES = 200;
const MAX_BYTES = 1024 * 1024;

/**
 * The confidential functions that the decorators of a handler name: of its module, and of the service's own
 * modules that it imports.
 */
function namedIn(definition, directory) {
  const references = new Set();
  let isOpen = false;
  for (const text of modulesOf(definition, directory)) {
    for (const [, , literal, other] of text.matchAll(DECORATOR)) {
      if (other === undefined) references.add(literal);
      else isOpen = true;
    }
  }
  return { references, isOpen };
}

function* modulesOf(definition, directory) {
  const root = path.join(directory, definition.module || '');
  const handler = String(definition.handler || '').replace(/\.[^./]*$/, '');
  const waiting = [path.join(root, `${handler.replace(/\./g, '/')}.py`)];
  const seen = new Set();
  while (waiting.length && seen.size < MAX_FILES) {
    const file = waiting.pop();
    if (seen.has(file) || !isModule(file)) continue;
    seen.add(file);
    const text = withoutComments(fs.readFileSync(file, 'utf8'));
    yield text;
    for (const name of importsOf(text)) {
      for (const base of [root, path.dirname(file)]) {
        const place = path.join(base, ...name.split('.').filter(Boolean));
        waiting.push(`${place}.py`, path.join(place, '__init__.py'));
      }
    }
  }
}

function* importsOf(text) {
  for (const [, , from, names, plain] of text.matchAll(IMPORT)) {
    if (plain) {
      for (const name of plain.split(',')) yield name.trim().split(/\s/)[0];
    } else {
      if (from) yield from;
      for (const name of names.split(',')) yield `${from ? `${from}.` : ''}${name.trim().split(/\s/)[0]}`;
    }
  }
}

function isModule(file) {
  try {
    const found = fs.statSync(file);
    return found.isFile() && found.size <= MAX_BYTES;
  } catch {
    return false;
  }
}

/** Without docstrings and comments, where a decorator is an example and no decorator. */
function withoutComments(text) {
  return text.replace(/("""|''')[\s\S]*?\1/g, '""').replace(/^[ \t]*#.*$/gm, '');
}

module.exports = { namedIn };
