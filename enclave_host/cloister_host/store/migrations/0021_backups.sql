-- Backups that were taken, until somebody says that their copies are gone; and how often, and from what, the
-- deployment was restored. Protected tables, rows of the system tenant.
CREATE TABLE backups (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE TABLE incarnations (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
