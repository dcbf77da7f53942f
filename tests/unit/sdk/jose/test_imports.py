"""A process that only wraps keys pays for nothing else."""

import subprocess
import sys

PRIMITIVES = "cryptography.hazmat.primitives."
HEAVY = [PRIMITIVES + name for name in ("asymmetric.ec", "asymmetric.ed25519", "asymmetric.mlkem", "hpke")]


def test_importing_jose_loads_no_public_key_cryptography() -> None:
    program = f"import cloister.jose, sys; print([name for name in {HEAVY} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
