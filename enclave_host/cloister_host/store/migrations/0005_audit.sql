-- The audit log (PROTOCOL 8). `position` is null until the sequencer gives the entry its leaf; `state` is the
-- counter of a tenant's state that the entry commits to. The MAC is over the salt and the entry.
DROP TABLE audit;
CREATE TABLE audit (
    id {text} PRIMARY KEY, tenant {text} NOT NULL, entry {text} NOT NULL, salt {bytes} NOT NULL,
    mac {bytes} NOT NULL, position BIGINT UNIQUE, state BIGINT
);
CREATE INDEX audit_by_tenant ON audit (tenant, id);
CREATE INDEX audit_unsequenced ON audit (id) WHERE position IS NULL;
CREATE INDEX audit_by_position ON audit (tenant, position) WHERE position IS NOT NULL;
CREATE INDEX audit_by_state ON audit (tenant, state) WHERE state IS NOT NULL;

-- The hash tree, 32 nodes of one level a row: the id is the level above bit 56, the place below it.
CREATE TABLE log_tiles (id BIGINT PRIMARY KEY, hashes {bytes} NOT NULL);

-- The newest tree head; it is signed, so it needs no MAC.
CREATE TABLE log_heads (id INTEGER PRIMARY KEY, token {text} NOT NULL);

-- The evidence behind every keyset that signed receipts, as it was stapled at a time (epoch seconds).
CREATE TABLE receipt_evidence (
    keyset {text} NOT NULL, kept_at BIGINT NOT NULL, document {bytes} NOT NULL, PRIMARY KEY (keyset, kept_at)
);

-- How many leaves a tenant has, and the chain over them: what is missing from a list of its entries shows.
CREATE TABLE log_tenants (
    tenant {text} PRIMARY KEY, entries BIGINT NOT NULL, chain {bytes} NOT NULL, mac {bytes} NOT NULL
);
