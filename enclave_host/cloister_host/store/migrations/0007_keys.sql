-- How much each key version has protected, and what is known to hang on it; a protected table.
CREATE TABLE key_usage (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);

-- Data keys that were kept when values moved to another key version; a protected table.
CREATE TABLE dek_usage (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);

-- Keys that wait for material to be wrapped to them (BYOK), the private half as a blob.
CREATE TABLE import_keys (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);

-- Versions of secrets by name/number, the value as a blob.
CREATE TABLE secret_versions (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
