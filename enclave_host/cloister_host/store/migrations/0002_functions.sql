-- Confidential functions: names and aliases; bundles by name@digest, the archive as a blob.
CREATE TABLE functions (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE function_versions (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);

-- Deliveries (PROTOCOL 9), the payload as a blob. `outbox_due` only tells where to look; the content decides.
CREATE TABLE outbox (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE outbox_due (
    due BIGINT NOT NULL, tenant {text} NOT NULL, id {text} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE INDEX outbox_due_by_time ON outbox_due (due);
