-- The hosts that serve now: where each is asked for keys, and which it has. Hints: what a peer gives is
-- believed for its evidence.
CREATE TABLE replicas (
    id {text} PRIMARY KEY, doors {text} NOT NULL, keys {text} NOT NULL, seen_at BIGINT NOT NULL
);

-- The kinds of machine that may be given request keys; one row of the system tenant.
CREATE TABLE holders (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
