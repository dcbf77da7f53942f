"""Cloister for Apache Spark: DataFrames sealed, tokenized, masked, sent through confidential functions.

    from cloister_spark import Cloister

    cloister = Cloister()
    tokens = cloister.tokenize(members, "ssn", policy="ssn")
    tokens.write.parquet("s3a://lake/members")
    print(cloister.progress)

Every executor process appraises the host once, with settings and credentials of its own: neither is in the
plan. A row that fails has a code in an error column; an outage is waited out, and nothing is done twice.
"""

from cloister.columns import Patience
from cloister_spark.frames import Cloister
from cloister_spark.progress import Progress
from cloister_spark.rotation import Rotated
from cloister_spark.steps import Retokenize, Rewrap

__all__ = ["Cloister", "Patience", "Progress", "Retokenize", "Rewrap", "Rotated"]
