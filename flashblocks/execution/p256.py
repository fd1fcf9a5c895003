"""Signature verification on the curve P-256 for the P256VERIFY precompile (RIP-7212)."""

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FIELD = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF

INPUT_BYTES = 160


def p256_verify(data: bytes) -> bool:
    """Whether `data` = digest, r, s, x, y (32 bytes each) is a valid signature; wrong lengths and points are not."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    if len(data) != INPUT_BYTES:
        return False
    r, s, x, y = (int.from_bytes(data[at : at + 32], "big") for at in (32, 64, 96, 128))
    if not (0 < r < ORDER and 0 < s < ORDER and x < FIELD and y < FIELD):
        return False
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        key.verify(utils.encode_dss_signature(r, s), data[:32], ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except (ValueError, InvalidSignature):  # ValueError: not a point of the curve
        return False
    return True
