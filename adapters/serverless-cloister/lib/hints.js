'use strict';

const PRIVATE_HOST =
  /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|fd|\[fd)|\.(internal|local|lan)$|\.vpce\.amazonaws\.com$|^[^.]+$/;
const BATCHED = ['sqs', 'stream'];
const PARTIAL = 'ReportBatchItemFailures';

/** What will not work as it stands, or not as it was meant; none of it is certain enough to refuse. */
function of({ service, config, functions }) {
  const told = [];
  const host = new URL(config.url).hostname;
  for (const [name, definition] of functions) {
    const vpc = definition.vpc || service.provider.vpc;
    if (PRIVATE_HOST.test(host) && !vpc && host !== 'localhost') {
      told.push(`${host} looks private, and ${name} is in no VPC; set \`custom.cloister.vpc\``);
    }
    if (vpc && (config.identity || 'aws') === 'aws') {
      told.push(`${name} is in a VPC: it needs a route to STS (interface endpoint com.amazonaws.REGION.sts)`);
    }
    for (const event of definition.events || []) {
      const kind = BATCHED.find((one) => event[one]);
      if (kind && event[kind].functionResponseType !== PARTIAL) {
        told.push(
          `${name}: with @confidential(per="record") the ${kind} event needs \`functionResponseType: ${PARTIAL}\`, ` +
            'or Lambda takes failed records for done',
        );
      }
    }
  }
  return told;
}

module.exports = { of };
