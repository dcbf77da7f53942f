"""The three clouds on one machine, for the examples and the tests.

Real clients and runtimes do the talking wherever one can run without an account; what has no local
edition is a small server that follows the published contract:

    lambda_runtime           the real `awslambdaric` behind a Lambda Runtime API
    s3                       S3 by moto, for the real boto3
    bigquery                 a BigQuery REST API over DuckDB that calls real remote functions
    functions_framework_app  the real functions-framework under gunicorn
    azurite                  the real Azurite blob service
    azure_functions          Microsoft's Functions runtime behind an HTTPS front
    breach_service           the third party of the SSN example, with faults to inject
    ca                       one certificate authority for all of them

Everything listens on 127.0.0.1, on a port the system picks, and stops with its context manager.
"""
