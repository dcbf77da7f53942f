-- Copies of root keys, each sealed by an unseal provider: of one generation, there is one or more. Authentic by
-- that sealing, so readable before any key is known. `deployment` only tells which one it was sealed for.
DROP TABLE roots;
CREATE TABLE roots (
    id {text} PRIMARY KEY, generation INTEGER NOT NULL, provider {text} NOT NULL,
    deployment {text} NOT NULL, sealed {bytes} NOT NULL
);

-- What became of each generation, and to whom recovery copies are sealed; rows of nobody's.
CREATE TABLE root_generations (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE root_recoveries (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
