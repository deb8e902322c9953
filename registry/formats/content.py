"""The content hash: what the weights are, whatever the file, the key dialect or the order of the data."""

import hashlib
from collections.abc import Mapping

from registry.header import Header


def content_sha256(header: Header, digests: Mapping[str, str], small: Mapping[str, bytes]) -> str | None:
    """sha256 over the lines `name dtype shape sha256-of-bytes`, sorted by canonical name; None where no name is canonical.

    `digests` has the sha256 of each tensor's bytes, `small` the bytes of the smallest tensors (alphas).
    """
    lines = [f"{name} {info.dtype} {','.join(map(str, info.shape))} {digests[name]}" for name, info in header.tensors.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
