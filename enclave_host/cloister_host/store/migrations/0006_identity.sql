-- Quorum: a tenant's rules in one row, and the exact acts that wait for approval. Protected tables.
CREATE TABLE quorum (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE proposals (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);

-- Who vouches for principals (OIDC issuers, certificate authorities), and for whom; groups. Protected tables.
CREATE TABLE issuers (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE bindings (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE user_groups (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
