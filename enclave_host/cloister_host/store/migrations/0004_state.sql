-- One counter and one sealed digest over all protected rows of each tenant (see `store.state`).
CREATE TABLE tenant_states (
    tenant {text} PRIMARY KEY, counter BIGINT NOT NULL, sealed {bytes} NOT NULL
);

-- What each of the last transactions changed, so that other processes can follow. Hints: believed only
-- where they lead to the digest.
CREATE TABLE tenant_changes (
    tenant {text} NOT NULL, counter BIGINT NOT NULL, changes {bytes} NOT NULL, PRIMARY KEY (tenant, counter)
);

-- The tenants that have a state; rows of the tenant with the empty name.
CREATE TABLE known_tenants (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
