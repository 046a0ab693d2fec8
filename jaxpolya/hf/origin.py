"""What a checkpoint says of its own origin and licence: the front matter of its README.md, a GGUF file's metadata, our marker.

A licence binds whoever trains on from a model, so it goes with whatever is made of it. A page that is missing, broken or out of
reach says nothing, and is no obstacle.
"""

from typing import Any

import huggingface_hub
from etils import epath

from jaxpolya.hf.directory import read_marker
from jaxpolya.hf.gguf.file import GGUFFile
from jaxpolya.hf.source import Location, base_of_adapter, locate

LICENCE = ("license", "license_name", "license_link")


def origin_of(source: str, revision: str | None = None) -> dict[str, Any]:
    """`{base_model, license, license_name, license_link}` as far as they are known, in the words of the hub's model cards.

    Args:
      source: a checkpoint, as `hf.checkpoint.load_checkpoint` takes it.
      revision: commit or tag, for hub names only.

    Returns:
      `base_model` is the nearest ancestor that has a name on the hub: the checkpoint itself, or the one that its page names. Raises
      `InputError` where there is no such checkpoint.
    """
    location = locate(source, revision=revision, weights=False)
    if location.kind == "gguf":
        metadata = GGUFFile(location.path).metadata
        facts = {key: metadata.get("general." + key.replace("_", ".")) for key in LICENCE}
    elif location.kind == "adapter":
        facts = origin_of(*base_of_adapter(location.path))
    elif location.kind == "jaxpolya":
        facts = dict((read_marker(location.path) or {}).get("origin", {}))
    else:
        facts = _front_matter(source, location)
    if location.commit:
        facts["base_model"] = source
    return {key: facts[key] for key in ("base_model", *LICENCE) if facts.get(key)}


def _front_matter(source: str, location: Location) -> dict[str, Any]:
    try:
        if location.commit:
            page = epath.Path(huggingface_hub.hf_hub_download(source, "README.md", revision=location.commit))
        else:
            page = location.path / "README.md"
        return huggingface_hub.ModelCard(page.read_text(), ignore_metadata_errors=True).data.to_dict()
    except Exception:  # whatever the hub's client, the file system, or YAML have against it
        return {}
