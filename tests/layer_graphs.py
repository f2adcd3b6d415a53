"""Random registries of layers, manifests, tags and images, and what they store by brute force, without SQL."""

import random
from collections import Counter
from fractions import Fraction

import pyarrow as pa


def graph(seed):
    """A random registry: layers with sizes, manifests, tags of two namespaces, images, and sets of images.

    All names begin with the seed, so that many graphs are one registry in which nothing is shared between them.
    """
    dice = random.Random(seed)
    first, second = f"{seed:04}a", f"{seed:04}b"
    sizes = {f"{seed}-layer-{number}": dice.choice((0, 1, 7, 10**9, dice.randrange(10**6))) for number in range(12)}
    manifests = {}
    for number in range(dice.randrange(1, 7)):
        known = dice.random() > 0.1
        manifests[f"{seed}-manifest-{number}"] = tuple(dice.sample(sorted(sizes), dice.randrange(6))) if known else None
    tags = {}
    for number in range(dice.randrange(1, 10)):
        namespace, repository = dice.choice((first, second)), dice.choice(("r", "s"))
        tags[namespace, repository, f"t{number}"] = dice.choice((*manifests, None) if number == 8 else (*manifests,))
    unread = {namespace for namespace in (first, second) if dice.random() < 0.15}
    images = {f"{seed}-image-{number}": dice.choice(sorted(tags)) for number in range(dice.randrange(8))}
    names = sorted(images)
    sets = {f"{seed}-{nth}": set(dice.sample(names, dice.randrange(len(names) + 1))) for nth in range(3)}
    return sizes, manifests, tags, unread, images, sets


def expected_tags(sizes, manifests, tags, unread):
    """For each tag: the bytes of all its layers, those that no other tag has, and its share of the others."""
    owners = Counter(layer for digest in tags.values() for layer in manifests.get(digest) or ())
    partial = unread | {key[0] for key, digest in tags.items() if manifests.get(digest) is None}
    found = {}
    for key, digest in tags.items():
        layers = manifests.get(digest)
        if layers is None:
            found[key] = (None, None, None, None)
            continue
        unique = sum(sizes[layer] for layer in layers if owners[layer] == 1)
        whole = sum(sizes[layer] for layer in layers)
        share = sum(Fraction(sizes[layer], owners[layer]) for layer in layers if owners[layer] > 1)
        is_known = key[0] not in partial
        found[key] = (
            whole,
            unique if is_known or unique == 0 else None,
            whole - unique if is_known or unique == 0 else None,
            share if is_known or not layers else None,
        )
    return found, partial


def expected_sets(sizes, manifests, tags, partial, images, sets):
    """The bytes freed by deleting the tags whose images are all in a set, as far as their namespaces are known."""
    found = {}
    for name, members in sets.items():
        gone = {
            key
            for key in set(images.values())
            if key[0] not in partial and {id_ for id_, at in images.items() if at == key} <= members
        }
        left = {layer for key, digest in tags.items() if key not in gone for layer in manifests.get(digest) or ()}
        freed = {layer for key in gone for layer in manifests[tags[key]]} - left
        found[name] = sum(sizes[layer] for layer in freed)
    return found


def table(names, rows, **types):
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table(
        [pa.array(list(values), types.get(name, pa.string())) for name, values in zip(names, columns, strict=True)],
        names=names,
    )


def load(engine, sizes, manifests, tags, unread, images, sets):
    partial = unread | {key[0] for key, digest in tags.items() if manifests.get(digest) is None}
    rows = []
    for key, digest in tags.items():
        layers = manifests.get(digest)
        rows.append((*key, digest, None if layers is None else len(layers), 0, 0, None, None))
    names = ["namespace", "repository", "tag", "digest", "layers", "tag_type", "downloads", "created", "updated"]
    numbers = dict.fromkeys(("layers", "tag_type", "downloads", "images_of_tag", "size_bytes"), pa.int64())
    engine.load("registry_tags", table(names, rows, **numbers))
    pointed = {digest: manifests[digest] for digest in tags.values() if manifests.get(digest) is not None}
    layers = [(digest, layer, sizes[layer]) for digest, has in pointed.items() for layer in has]
    engine.load("registry_layers", table(["digest", "layer_digest", "size_bytes"], layers, **numbers))
    whole = [(namespace, namespace not in partial) for namespace in sorted({key[0] for key in tags})]
    engine.load("registry_namespaces", table(["namespace", "is_whole"], whole, is_whole=pa.bool_()))
    of_tag = Counter(images.values())
    stored = [
        (id_, *key, "known" if key[0] not in partial else "partial", tags[key], of_tag[key])
        for id_, key in images.items()
    ]
    names = ["id", "namespace", "repository", "tag", "state", "digest", "images_of_tag"]
    engine.load("image_storage", table(names, stored, **numbers))
    members = [("set", name, id_) for name, ids in sets.items() for id_ in ids]
    engine.load("unused_sets", table(["dimension", "name", "id"], members))
