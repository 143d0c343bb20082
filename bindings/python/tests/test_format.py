"""Computes the examples of tests/vectors.txt by docs/FORMAT.md.

Uses other cryptographic packages than the library.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors.txt"
SALT = bytes(range(32))
SECRET = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0xF0, 0xFC))
CREATED, AUTHENTICATED, LAST_USE, VERSION = 1000, 1500, 2000, 3
ABSOLUTE, IDLE, INDEXED, ENDS = 0, 60_000, 62_000, 5000


def kdf(context: str, key_material: bytes) -> bytes:
    return blake3(key_material, derive_key_context=context).digest()


def keyed(key: bytes, data: bytes, length: int = 32) -> bytes:
    return blake3(data, key=key).digest(length=length)


def id_keys(sid: bytes) -> tuple[bytes, bytes]:
    both = keyed(kdf("libsss 2026 format 2: session id", SALT), sid, 64)
    return both[:32], both[32:]


def sealed(id_key: bytes, secret: bytes | None, plain: bytes, associated: bytes) -> bytes:
    number, key = bytes(4), id_key
    if secret is not None:
        digest = kdf("libsss 2026 format 2: number of a secret", secret)
        number = bytes([digest[0] | 1]) + digest[1:4]
        key = keyed(kdf("libsss 2026 format 2: secret", secret), id_key)
    return b"\x02" + number + NONCE + AESGCM(key).encrypt(NONCE, plain, associated)


def vectors() -> dict[str, str]:
    lines = [line for line in VECTORS.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(" = ") for line in lines)


@pytest.mark.parametrize(("name", "secret"), [("without secret", None), ("with secret", SECRET)])
def test_format_page_reproduces_vectors(name: str, secret: bytes | None) -> None:
    expected = vectors()
    (old, old_id_key), (new, new_id_key) = id_keys(b"A" * 128), id_keys(b"B" * 128)
    principal = keyed(kdf("libsss 2026 format 2: principal", SALT), b"alice")
    assert old.hex() == expected["lookup key of A"]
    assert new.hex() == expected["lookup key of B"]
    assert principal.hex() == expected["principal key of alice"]

    label_key = keyed(kdf("libsss 2026 format 2: label", SALT), b"alice")
    label = sealed(label_key, secret, b"Firefox", b"\x02\x03" + principal + struct.pack("<q", CREATED))

    associated = b"\x02\x01" + old + struct.pack("<qqqq", CREATED, AUTHENTICATED, ABSOLUTE, IDLE)
    associated += b"\x01" + principal + struct.pack("<Q", VERSION)
    record = struct.pack("<BBHIqq", 2, 1 | 2 | 16, 9, 7, CREATED, LAST_USE)
    record += struct.pack("<Qqqqq", VERSION, ABSOLUTE, IDLE, INDEXED, AUTHENTICATED)
    record += principal + struct.pack("<H", len(label)) + label
    record += sealed(old_id_key, secret, b"hello", associated)
    assert record.hex() == expected[f"record of A, {name}"]

    token = sealed(old_id_key, secret, new_id_key, b"\x02\x02" + old + new + struct.pack("<q", ENDS))
    alias = b"\x02\x04" + new + struct.pack("<q", ENDS) + token
    assert alias.hex() == expected[f"alias of A to B, {name}"]
