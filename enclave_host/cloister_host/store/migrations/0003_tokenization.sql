-- What each principal had detokenized; a protected table.
CREATE TABLE token_budgets (
    tenant {text} NOT NULL, id {text} NOT NULL, version BIGINT NOT NULL,
    content {text} NOT NULL, secret {bytes}, mac {bytes} NOT NULL, PRIMARY KEY (tenant, id)
);
