'use strict';

/** What the user can mend; `index.js` turns it into the framework's own error. */
class PluginError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

module.exports = { PluginError };
