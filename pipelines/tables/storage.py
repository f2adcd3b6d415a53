"""What the registry stores: the evidence of its tags and layers, and what follows from it for images and tags."""

import pyarrow as pa

from pipelines.tables.column import ID, PROJECT_ID, SNAPSHOT_DATE, TIMESTAMP, Column, Table, api, derived

_PARTS = (
    ("namespace", "Organisation of the registry."),
    ("repository", "Repository, without its namespace; it may have slashes."),
    ("tag", "Tag, as the registry writes it; a manifest without a tag has its digest here, after an @."),
)
_TAG_KEY = tuple(Column(name, pa.string(), "key", meaning, True) for name, meaning in _PARTS)


REGISTRY_PAGES = Table(
    "registry_pages",
    "Evidence: the responses of the registry, from which `registry_tags` and `registry_layers` are made. Empty if the "
    "registry was not read.",
    ("snapshot_date", "project_id", "page"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("page", pa.int32(), "key", "Position of the response, from 0.", True),
        Column("kind", pa.string(), "provenance", "repositories, tags or manifest.", True),
        Column("namespace", pa.string(), "provenance", "Namespace that was asked for; null for all of them."),
        Column("repository", pa.string(), "provenance", "Repository that was asked for; null for a list of them."),
        Column("observed_at", TIMESTAMP, "provenance", "When the response was received.", True),
        Column("body", pa.binary(), "provenance", "Body, byte for byte after transfer decoding.", True),
        Column("body_sha256", pa.string(), "provenance", "SHA-256 of `body`, in hexadecimal.", True),
    ),
)

REGISTRY_TAGS = Table(
    "registry_tags",
    "Evidence: every tag of the repositories of the registry that were read, whether or not an image registers it. The "
    "manifest says which namespaces were read, and which repositories could not be.",
    ("snapshot_date", "project_id", "namespace", "repository", "tag"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        *_TAG_KEY,
        api("digest", "Digest of the manifest that the tag points to, `sha256:…`, in lower case."),
        api("config_digest", "Digest of the image's configuration; null for a manifest list."),
        api("size_bytes", "Size in bytes, as the registry states it.", pa.int64()),
        derived(
            "layers", pa.int64(), "Number of distinct layers, of all platforms together; null if they are not known."
        ),
        api("tag_type", "0: one image; 1: a manifest list, for several platforms.", pa.int64()),
        api("downloads", "Number of downloads of the whole repository, as its list states it.", pa.int64()),
        api("created", "When the tag was created (UTC).", TIMESTAMP),
        api("updated", "When the tag was last pushed (UTC).", TIMESTAMP),
        Column("observed_at", TIMESTAMP, "provenance", "When the page with this tag was received.", True),
    ),
)

REGISTRY_LAYERS = Table(
    "registry_layers",
    "Evidence: the distinct layers of each manifest that a tag points to. Those of a manifest list are the layers of "
    "all its platforms.",
    ("snapshot_date", "project_id", "digest", "layer_digest"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("digest", pa.string(), "key", "Digest of the manifest, as in `registry_tags`.", True),
        Column("layer_digest", pa.string(), "key", "Digest of the layer, in lower case.", True),
        Column("size_bytes", pa.int64(), "api", "Stored (compressed) size of the layer in bytes.", True),
    ),
)

_UNIQUE = (
    "Bytes of the layers that no other tag of the registry has: what deleting this one tag would free. Two tags of the "
    "same digest have no layer of their own, so deleting one of them frees nothing. "
)
_SHARE = (
    "Of each layer that several tags have, its bytes divided by the number of these tags. So `unique_bytes` and this, "
    "added up over all tags of the registry, are what it stores. "
)

IMAGE_STORAGE = Table(
    "image_storage",
    "What the registry stores for each known image, by layers: one row per image, joined by namespace, repository and "
    "tag. Empty until the registry is read once; a later day that does not read it hands on what was known before. The "
    "bytes are null where a tag that could share layers could not be read (see `state`), because then they are not "
    "known.",
    ("snapshot_date", "project_id", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        *(derived(name, pa.string(), f"{meaning} Part of the image's address.") for name, meaning in _PARTS),
        Column(
            "state",
            pa.string(),
            "derived",
            "known: the tag was read, and so was every tag of its namespace; partial: the tag was read, but not every "
            "tag of its namespace, or not all their layers; tag_gone: the tag's repository was read and lacks it, or "
            "the list of its namespace lacks the repository; unread: the tag's repository or namespace was not read; "
            "elsewhere: the image has no address, or lies in a registry instance of its own.",
            True,
            values=("known", "partial", "tag_gone", "unread", "elsewhere"),
        ),
        derived("digest", pa.string(), "Digest of the tag on this day; null if it is not known."),
        derived(
            "digest_before",
            pa.string(),
            "Digest of the image's tag when it was last read on an earlier complete day; null if it never was, or if "
            "it was at another address and today's is not known.",
        ),
        derived("digest_before_date", pa.date32(), "That day."),
        Column(
            "digest_changes",
            pa.int64(),
            "derived",
            "How often another digest was found at the same address than when it was last read, up to this day.",
            True,
        ),
        derived("layers", pa.int64(), "Number of distinct layers of the tag."),
        derived("size_bytes", pa.int64(), "Bytes of these layers: `unique_bytes` and `shared_bytes`."),
        derived("unique_bytes", pa.int64(), _UNIQUE + "Null unless the state is known, or there are surely none."),
        derived("shared_bytes", pa.int64(), "Bytes of the layers that another tag has, too; null like `unique_bytes`."),
        derived("shared_bytes_share", pa.float64(), _SHARE + "Null unless the state is known."),
        derived(
            "images_of_tag",
            pa.int64(),
            "Number of known images that register this tag. The bytes are those of the tag: divide by this number "
            "before adding up images.",
        ),
        derived("downloads", pa.int64(), "Downloads of the whole repository, as the registry counts them."),
        derived(
            "downloads_before", pa.int64(), "That number when it was last read on an earlier complete day, if it was."
        ),
        derived("downloads_before_date", pa.date32(), "That day."),
        derived(
            "pulls_since",
            pa.int64(),
            "Growth of the repository's downloads since that day; null if the count fell, as when the repository was "
            "made anew.",
        ),
    ),
)

REGISTRY_ONLY = Table(
    "registry_only",
    "The tags of the registry that no known image of this project registers: paid by somebody, registered by nobody "
    "here. An image of another project may register them. Empty if the registry is not read.",
    ("snapshot_date", "project_id", "namespace", "repository", "tag"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        *_TAG_KEY,
        derived("digest", pa.string(), "As in `registry_tags`."),
        derived("layers", pa.int64(), "As in `image_storage`."),
        derived("size_bytes", pa.int64(), "As in `image_storage`."),
        derived("unique_bytes", pa.int64(), "As in `image_storage`."),
        derived("shared_bytes", pa.int64(), "As in `image_storage`."),
        derived("shared_bytes_share", pa.float64(), "As in `image_storage`."),
        derived("tag_type", pa.int64(), "As in `registry_tags`."),
        derived("downloads", pa.int64(), "As in `registry_tags`."),
        derived("created", TIMESTAMP, "As in `registry_tags`."),
        derived("updated", TIMESTAMP, "As in `registry_tags`."),
        Column(
            "is_certain",
            pa.bool_(),
            "derived",
            "Whether the image list was read as a whole: otherwise an image that the inventory lacks may register it.",
            True,
        ),
    ),
)

RECLAIMABLE = Table(
    "reclaimable",
    "What deleting sets of unused images would free together, computed over distinct layers: a layer is freed when no "
    "tag is left that has it. Empty if the registry is not read or usage is not observed.",
    ("snapshot_date", "project_id", "dimension", "name"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column(
            "dimension",
            pa.string(),
            "derived",
            "all; owner or namespace: images unused for 30 days, of that owner or namespace; rule: images that the "
            "audit rule finds and that nothing needs.",
            True,
            values=("all", "owner", "namespace", "rule"),
        ),
        Column("name", pa.string(), "derived", "Owner, namespace or rule; '' for none, and for all.", True),
        Column("images", pa.int64(), "derived", "Images of the set; preset images are in none.", True),
        Column(
            "unknown_images",
            pa.int64(),
            "derived",
            "Those of them whose bytes are not known: their state in `image_storage` is not known (nor tag_gone).",
            True,
        ),
        derived("image_bytes", pa.int64(), "Sum of the sizes that the image API states: an upper bound."),
        Column(
            "known_bytes",
            pa.int64(),
            "derived",
            "Bytes that deleting the other images of the set frees. A tag counts as deleted only if all images that "
            "register it are in the set.",
            True,
        ),
        derived("reclaimable_bytes", pa.int64(), "`known_bytes` if no image is unknown, else null: not known."),
    ),
)
