"""Where runs lie: a folder, or a place in a bucket, as `resources.storage_path` names it."""

from urllib.parse import parse_qsl, urlsplit

SCHEMES = ("s3", "gs", "az")
OPTIONS = {"s3": ("region", "endpoint_override", "scheme"), "gs": ("endpoint_override", "scheme"), "az": ()}
"""What the query of a URL may set, by scheme; the names are pyarrow's."""


def is_bucket(place: str) -> bool:
    """Whether this is a URL and not a folder."""
    return "://" in place


def check_storage(place: str) -> str:
    """The place without a slash at its end.

    Raises:
        ValueError: If it is a URL that names no bucket of a known kind, or sets what a URL must not.
    """
    if not is_bucket(place):
        return place
    parts = urlsplit(place)
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{parts.scheme}:// is no storage that is known; allowed are a folder, {known}")
    if "@" in parts.netloc:
        raise ValueError(
            "a URL holds no keys; give them by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws or "
            "the machine's role (gs://: application default credentials, az://: AZURE_STORAGE_KEY or its identity)"
        )
    if not parts.netloc or parts.fragment:
        raise ValueError(f"write it as {parts.scheme}://bucket/folder")
    allowed = OPTIONS[parts.scheme]
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            known = ", ".join(allowed) or "nothing"
            raise ValueError(f"{name!r} cannot be set in a URL of {parts.scheme}://; allowed there: {known}")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{query}"


def below(place: str, name: str) -> str:
    """The URL of something in a bucket's place, without the query."""
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.netloc}{parts.path}/{name}"
