"""Backups of a deployment: one file that proves what it is without the root key. See SPEC.md.

    backup = Backup(file, deployment=DEPLOYMENT)     # the signed manifest at its end
    backup.check_object()                            # nothing is missing or changed
    for record in backup.records(key): ...           # rows, opened with the backup key
    verify_log(backup.records(key), backup.manifest, known=head)  # every leaf of the audit log

Rows are as the untrusted database holds them: what is secret stays sealed under keys of the root, which is
itself in the backup only as its unseal provider sealed it.
"""

from cloister.backups.file import Backup, BackupWriter
from cloister.backups.log import CheckedLog, verify_log
from cloister.backups.manifest import Manifest
from cloister.backups.records import Begin, End, Record, Rows, TableOf

__all__ = [
    "Backup",
    "BackupWriter",
    "Begin",
    "CheckedLog",
    "End",
    "Manifest",
    "Record",
    "Rows",
    "TableOf",
    "verify_log",
]
