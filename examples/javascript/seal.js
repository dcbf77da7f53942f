// Seal lines of standard input for a tenant: node seal.js KEY_FILE DEPLOYMENT TENANT [NAME=VALUE ...]

import { readFileSync } from "node:fs";
import { seal, verifyPublicKey } from "./sealed.js";

const [keyFile, deployment, tenant, ...pairs] = process.argv.slice(2);
const { statement } = JSON.parse(readFileSync(keyFile, "utf8"));
const key = await verifyPublicKey(statement, { deployment, tenant });
const context = pairs.length ? Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s, 2))) : undefined;

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  console.log(await seal(line, key, context));
}
