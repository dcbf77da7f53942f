"""Receipts, and the log that every act leaves a leaf in (PROTOCOL 8; byte for byte in SPEC.md).

Without I/O and without a clock: whoever holds a receipt, a proof or an export can check it here.
"""

from cloister.receipts.head import TreeHead, sign_head, verify_head
from cloister.receipts.keeper import HeadKeeper
from cloister.receipts.receipt import Receipt, VerifiedReceipt, issue_receipt, verify_receipt

__all__ = [
    "HeadKeeper",
    "Receipt",
    "TreeHead",
    "VerifiedReceipt",
    "issue_receipt",
    "sign_head",
    "verify_head",
    "verify_receipt",
]
