-- Root keys, sealed by an unseal provider. Authentic by that sealing, so readable before any key is known.
CREATE TABLE roots (
    generation INTEGER PRIMARY KEY,
    provider {text} NOT NULL,
    sealed {bytes} NOT NULL
);

-- Protected tables (PROTOCOL 7): content is canonical JSON under `mac`, `secret` an AES-GCM blob.
CREATE TABLE tenants (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE tenant_keys (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE principals (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE api_keys (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE grants (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE keys (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE key_versions (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE policies (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE secrets (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);

-- Answers to repeated effects. `expires` only tells what may be pruned; the content decides.
CREATE TABLE idempotency (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE idempotency_expiry (
    expires BIGINT NOT NULL, tenant {text} NOT NULL, id {text} NOT NULL, PRIMARY KEY (expires, tenant, id)
);

-- Requests seen (PROTOCOL 6); the reply is already sealed to whoever sealed the request.
CREATE TABLE requests (
    deployment {text} NOT NULL, jti {text} NOT NULL, digest {bytes} NOT NULL, reply {bytes},
    expires BIGINT NOT NULL, PRIMARY KEY (deployment, jti)
);
CREATE INDEX requests_by_expiry ON requests (expires);

-- Random tokens. The value is a blob; `lookup` is a keyed hash of it where a policy asks for one.
CREATE TABLE vault (
    tenant {text} NOT NULL, policy {text} NOT NULL, token {text} NOT NULL,
    value {bytes} NOT NULL, lookup {bytes}, PRIMARY KEY (tenant, policy, token)
);
CREATE UNIQUE INDEX vault_by_lookup ON vault (tenant, policy, lookup) WHERE lookup IS NOT NULL;

-- The audit log (PROTOCOL 8). `position` is null until the sequencer gives the leaf its place.
CREATE TABLE audit (
    id {text} PRIMARY KEY, tenant {text} NOT NULL, entry {text} NOT NULL, salt {bytes} NOT NULL,
    leaf {bytes} NOT NULL, mac {bytes} NOT NULL, position BIGINT UNIQUE
);
CREATE INDEX audit_by_tenant ON audit (tenant, id);
