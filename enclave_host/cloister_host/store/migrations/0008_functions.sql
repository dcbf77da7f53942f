-- Answers that left, by function and principal or subject (under a keyed hash); a protected table.
CREATE TABLE answer_budgets (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
-- What functions printed and logged, sealed under the tenant's key; a protected table.
CREATE TABLE function_logs (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
-- Public keys of deployers and authors, and what a tenant demands of deployments; protected tables.
CREATE TABLE signers (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE function_rules (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
-- Asynchronous invocations: request, then result, as the secret part; a protected table.
CREATE TABLE jobs (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
-- Where to look for jobs that wait, run or expire; the content decides.
CREATE TABLE jobs_due (
    due BIGINT NOT NULL, tenant {text} NOT NULL, id {text} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE INDEX jobs_due_by_time ON jobs_due (due);
